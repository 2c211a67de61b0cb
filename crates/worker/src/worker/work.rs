use std::collections::VecDeque;

use crate::event::Item;

/// The records of a slice that are still to be worked off, in parts, one after another.
///
/// A slice is one part. Where one of its events fails by itself it is divided until that event is found;
/// then that one is parked, and the rest goes on. What takes too long, or collides too often, is divided, too.
#[derive(Debug)]
pub(super) struct Work {
    parts: VecDeque<Vec<Item>>,
    suspect: bool,
    abandoned: bool,
}

impl Work {
    pub(super) fn new(items: Vec<Item>) -> Self {
        Self {
            parts: VecDeque::from([items]),
            suspect: false,
            abandoned: false,
        }
    }

    /// Takes the next part that has records.
    pub(super) fn next(&mut self) -> Option<Vec<Item>> {
        loop {
            let part = self.parts.pop_front()?;
            if !part.is_empty() {
                return Some(part);
            }
        }
    }

    /// Puts a part back, to be tried again.
    pub(super) fn put_back(&mut self, part: Vec<Item>) {
        self.parts.push_front(part);
    }

    /// Makes two of a part. They stay in order, so that those of an account do.
    pub(super) fn divide(&mut self, mut part: Vec<Item>) {
        let second = part.split_off(part.len() / 2);
        self.parts.push_front(second);
        self.parts.push_front(part);
    }

    /// Notes that something is unusual about these records.
    pub(super) fn suspect(&mut self) {
        self.suspect = true;
    }

    /// Whether something is unusual about these records.
    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Drops records.
    pub(super) fn retain(&mut self, keep: impl Fn(&mut Vec<Item>)) {
        self.parts.iter_mut().for_each(keep);
    }

    /// Drops everything that is not done yet.
    pub(super) fn abandon(&mut self) {
        self.parts.clear();
        self.abandoned = true;
    }

    /// Whether work was given up before all was done.
    pub(super) const fn abandoned(&self) -> bool {
        self.abandoned
    }
}
