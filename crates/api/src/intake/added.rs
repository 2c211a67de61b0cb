use common::types::{Lane, LaneSet};

use super::{NewTransaction, metrics::Accepted};

/// What a commit added: transactions, and an outbox row for each.
#[derive(Debug, Default)]
pub(super) struct Added {
    accepted: Accepted,
    lanes: LaneSet,
}

impl Added {
    pub(super) fn add(&mut self, new: &NewTransaction) {
        self.accepted.add(new);
        self.lanes.insert(Lane::of(new.account_id));
    }

    /// Counts the transactions. The answer is the lanes their outbox rows are in.
    pub(super) fn count(self) -> LaneSet {
        self.accepted.count();
        self.lanes
    }
}
