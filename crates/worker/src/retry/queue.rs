//! What becomes of parked events, decided from what was read under the locks. No I/O.

use std::collections::{HashMap, HashSet};

use common::types::{AccountId, EventId, SCHEMA_VERSION, TransactionCreated};

use crate::{
    ledger::{self, AccountState, Posting, TransactionRow},
    rejections::Rejected,
};

/// The first event of an account's queue, as it was seen when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) account: AccountId,
    pub(super) position: i64,
    /// How many events the queue has.
    pub(super) queued: i32,
}

/// An account that is locked for its queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Locked {
    pub(super) account: AccountId,
    /// Where its head was seen.
    pub(super) head_position: i64,
    /// How many events the queue has.
    pub(super) queued: i32,
    pub(super) state: AccountState,
}

/// How much of a queue is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) account: AccountId,
    pub(super) head_position: i64,
    pub(super) events_max: i64,
}

/// A parked event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parked {
    pub(super) account: AccountId,
    pub(super) position: i64,
    pub(super) event: EventId,
    /// How often it failed.
    pub(super) attempts: i32,
    /// Whether it is a head whose time has come.
    pub(super) is_due: bool,
    /// Its transaction waits for a dead letter.
    pub(super) is_dead_lettered: bool,
    /// Its transaction's row, the authority on what is to be posted.
    pub(super) transaction: Option<TransactionRow>,
}

/// The beginning of a queue that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) account: AccountId,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) events: i32,
}

/// How many rows a removal changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed<T> {
    /// Events that left their queues.
    pub(super) events: T,
    /// Accounts whose count was lowered.
    pub(super) accounts: T,
    /// Events that became the heads of their queues.
    pub(super) heads: T,
}

/// How many of the heads it takes, each with its whole queue, to have so many events.
pub(super) fn accounts_for(heads: &[Head], events_max: i64) -> i64 {
    let mut left = events_max;
    let enough = heads.iter().take_while(|head| {
        let wanted = left > 0;
        left -= i64::from(head.queued.max(1));
        wanted
    });
    i64::try_from(enough.count()).unwrap_or(i64::MAX)
}

/// Divides so many events among the accounts: each gives its whole queue, as far as that goes.
pub(super) fn share(accounts: &[Locked], events_max: i64) -> Vec<Waiting> {
    let mut left = events_max;
    let mut shares = Vec::new();
    for locked in accounts {
        let events_max = left.min(i64::from(locked.queued));
        if events_max <= 0 {
            continue;
        }
        left -= events_max;
        shares.push(Waiting {
            account: locked.account,
            head_position: locked.head_position,
            events_max,
        });
    }
    shares
}

/// What is to be done about events that were read behind the locks of their accounts.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The events that are tried, in order.
    pub(super) events: Vec<Parked>,
    /// What ends transactions, in order, and from where in the queues.
    pub(super) postings: Vec<(TransactionCreated, Posting)>,
    /// The events that were rejected, and why.
    pub(super) rejected: Vec<Rejected>,
    /// What leaves the queues.
    pub(super) removals: Vec<Removal>,
    /// How many rows that changes.
    pub(super) removed: Removed<usize>,
    /// The transaction's row of one of the events is gone; then nothing may be posted.
    pub(super) is_without_row: bool,
}

/// Decides event by event, in order. A queue whose first event is not the due head that was seen is
/// left alone: somebody else was here. So is one whose account is not among the locked.
pub(super) fn plan(accounts: &[Locked], parked: &[Parked]) -> Plan {
    let mut locked: HashMap<AccountId, Locked> = HashMap::new();
    for account in accounts {
        locked.entry(account.account).or_insert(*account);
    }
    let mut plan = Plan::default();
    for queue in parked.chunk_by(|one, next| one.account == next.account) {
        let (Some(first), Some(last)) = (queue.first(), queue.last()) else {
            continue;
        };
        let Some(account) = locked.remove(&first.account) else {
            continue;
        };
        if first.position != account.head_position || !first.is_due {
            continue;
        }
        plan.take(
            account,
            queue,
            Removal {
                account: first.account,
                first: first.position,
                last: last.position,
                events: i32::try_from(queue.len()).unwrap_or(i32::MAX),
            },
        );
    }
    plan
}

impl Plan {
    /// Takes the beginning of one queue.
    fn take(&mut self, account: Locked, queue: &[Parked], removal: Removal) {
        let mut state = account.state;
        // A repeat within the queue cannot be (a unique key), but would find its transaction final.
        let mut ended = HashSet::new();
        for parked in queue {
            self.events.push(*parked);
            let Some(row) = parked.transaction else {
                self.is_without_row = true;
                continue;
            };
            // Ended while it waited. Nothing does that today; it would have nothing to wait for.
            if row.status.is_final() || parked.is_dead_lettered || !ended.insert(row.id) {
                continue;
            }
            let posting = ledger::post(&mut state, &row);
            if let Some(reason) = posting.failure_reason() {
                self.rejected.push(Rejected {
                    account: parked.account,
                    position: parked.position,
                    reason,
                });
            }
            self.postings.push((created(&row), posting));
        }
        self.removed.events += queue.len();
        self.removed.accounts += 1;
        self.removed.heads += usize::from(account.queued > removal.events);
        self.removals.push(removal);
    }
}

/// What the row's event says: a parked event was compared with its row, and no role may change the row
/// in that.
fn created(row: &TransactionRow) -> TransactionCreated {
    TransactionCreated {
        schema_version: SCHEMA_VERSION,
        transaction_id: row.id,
        account_id: row.account_id,
        amount_cents: row.amount,
        currency: row.currency,
        transaction_type: row.transaction_type,
    }
}

#[cfg(test)]
mod tests;
