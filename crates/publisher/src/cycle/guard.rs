use std::{array, collections::HashSet};

use uuid::Uuid;

use crate::settings::TOPICS;

/// Of so many accounts rows may become dead letters before something is delivered to the topic they
/// were for.
const GIVEN_UP_ACCOUNTS_MAX: usize = 20;

/// Keeps a topic with a wrong limit from turning every row into a dead letter: refusals of many
/// accounts, and nothing delivered in between, are a fault of the topic and not of the rows.
#[derive(Debug)]
pub(super) struct Guard {
    /// By topic: the accounts whose rows were given up since the last delivery.
    given_up: [HashSet<Uuid>; TOPICS],
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            given_up: array::from_fn(|_| HashSet::new()),
        }
    }

    /// Whether a row of this account for this topic may be given up.
    pub(super) fn admits(&mut self, topic: usize, account_id: Uuid) -> bool {
        let Some(accounts) = self.given_up.get_mut(topic) else {
            return false;
        };
        if accounts.len() >= GIVEN_UP_ACCOUNTS_MAX {
            return false;
        }
        accounts.insert(account_id);
        true
    }

    /// A topic took a row.
    pub(super) fn delivered(&mut self, topic: usize) {
        if let Some(accounts) = self.given_up.get_mut(topic) {
            accounts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_accounts_in_a_row_are_no_fault_of_theirs() {
        let mut guard = Guard::new();
        let accounts: Vec<Uuid> = (1..=20).map(Uuid::from_u128).collect();
        for account in &accounts[..19] {
            assert!(guard.admits(0, *account));
            assert!(guard.admits(0, *account), "each account counts once");
        }
        assert!(guard.admits(0, accounts[19]));
        assert!(!guard.admits(0, Uuid::from_u128(21)));
        assert!(!guard.admits(0, accounts[0]));
        assert!(guard.admits(1, accounts[0]), "another topic");
        guard.delivered(1);
        assert!(!guard.admits(0, accounts[0]));
        guard.delivered(0);
        assert!(guard.admits(0, accounts[0]));
    }
}
