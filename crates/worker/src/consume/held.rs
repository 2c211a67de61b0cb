use std::collections::VecDeque;

use crate::event::{Item, Place};

/// Records that were received and wait for the next slice, in their order.
#[derive(Debug, Default)]
pub(super) struct Held {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Held {
    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.raw().len();
        self.items.push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.raw().len();
        Some(item)
    }

    /// How many bytes the next one has.
    pub(super) fn next_bytes(&self) -> Option<usize> {
        self.items.front().map(|item| item.raw().len())
    }

    pub(super) fn retain(&mut self, keep: impl Fn(Place) -> bool) {
        self.items.retain(|item| keep(item.place()));
        self.bytes = self.items.iter().map(|item| item.raw().len()).sum();
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many bytes all have together.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}
