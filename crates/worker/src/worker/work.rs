use std::collections::VecDeque;

use super::Halt;
use crate::event::Event;

/// The events of a slice that are still to be applied, in parts that are applied one after another.
///
/// A slice is one part. Where one of its events cannot be applied it is divided until that event is
/// found; then the event and all behind it in its partition are left out, so that no offset past it
/// is committed, and the rest goes on.
#[derive(Debug)]
pub(super) struct Work {
    parts: VecDeque<Vec<Event>>,
    halt: Option<Halt>,
    abandoned: bool,
}

impl Work {
    pub(super) fn new(events: Vec<Event>) -> Self {
        Self {
            parts: VecDeque::from([events]),
            halt: None,
            abandoned: false,
        }
    }

    /// Takes the next part that has events.
    pub(super) fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            let part = self.parts.pop_front()?;
            if !part.is_empty() {
                return Some(part);
            }
        }
    }

    /// Puts a part back, to be tried again.
    pub(super) fn put_back(&mut self, part: Vec<Event>) {
        self.parts.push_front(part);
    }

    /// Makes two of a part.
    pub(super) fn divide(&mut self, mut part: Vec<Event>) {
        let second = part.split_off(part.len() / 2);
        self.parts.push_front(second);
        self.parts.push_front(part);
    }

    /// Leaves out one event of a part and all behind it in its partition.
    pub(super) fn refuse(&mut self, mut part: Vec<Event>, index: usize, halt: Halt) {
        let refused = part[index].place;
        self.put_back(std::mem::take(&mut part));
        self.retain(|events| {
            events.retain(|event| {
                event.place.partition != refused.partition || event.place.offset < refused.offset
            });
        });
        self.halt(halt);
    }

    /// Drops events.
    pub(super) fn retain(&mut self, keep: impl Fn(&mut Vec<Event>)) {
        self.parts.iter_mut().for_each(keep);
    }

    /// Drops everything that is not applied yet.
    pub(super) fn abandon(&mut self) {
        self.parts.clear();
        self.abandoned = true;
    }

    /// Whether work was given up before all that could be applied was.
    pub(super) const fn abandoned(&self) -> bool {
        self.abandoned
    }

    /// Says why the worker has to stop behind this work; the first reason is the one kept.
    pub(super) fn halt(&mut self, halt: Halt) {
        halt.report();
        self.halt.get_or_insert(halt);
    }

    pub(super) fn into_halt(self) -> Option<Halt> {
        self.halt
    }
}
