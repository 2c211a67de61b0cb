//! What becomes of each event of a slice, decided from what was read under the locks.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use common::types::{AccountId, EventId, TransactionCreated, TransactionId, TransactionStatus};
use thiserror::Error;
use tracing::error;

use crate::{
    event::{Event, Item},
    ledger::{self, AccountState, Posting, TransactionRow},
};

/// What the database says about a slice's accounts (locked) and transactions.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) accounts: HashMap<AccountId, AccountState>,
    /// The accounts with parked events: what is not closed waits behind those.
    pub(super) queues: HashSet<AccountId>,
    pub(super) transactions: HashMap<TransactionId, Accepted>,
}

/// A transaction's row and its age.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    pub(super) row: TransactionRow,
    /// Its event is a dead letter: only a replay, which clears this first, may post it.
    pub(super) dead_lettered: bool,
    /// How long ago it was accepted, by the database's clock, when it was read.
    pub(super) age_seconds: f64,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// It ended its transaction.
    Closed {
        /// How.
        posting: Posting,
        /// How long ago the transaction had been accepted, by the database's clock.
        age_seconds: f64,
    },
    /// It had been closed, parked or made a dead letter before, and changed nothing.
    Duplicate,
    /// It waits for a retry, or behind an event of its account that does.
    Parked,
    /// It can never be applied, and is a dead letter.
    Dead(Inapplicable),
    /// It is no event at all, and is a dead letter.
    Unusable,
}

impl Outcome {
    /// How it ended its transaction, if it did.
    #[must_use]
    pub const fn posting(&self) -> Option<Posting> {
        match self {
            Self::Closed { posting, .. } => Some(*posting),
            _ => None,
        }
    }

    /// Whether the record is a dead letter now.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self, Self::Dead(_) | Self::Unusable)
    }

    /// Whether nothing of the record has to be set aside.
    pub(super) const fn is_common(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Duplicate)
    }

    /// Adds the time since the row was read.
    pub(super) fn grow_older(&mut self, by: Duration) {
        if let Self::Closed { age_seconds, .. } = self {
            *age_seconds += by.as_secs_f64();
        }
    }
}

/// Why an event may not be applied: it claims what the transaction's row, the authority, does not
/// say. Who can write to the topic cannot make money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Inapplicable {
    /// No transaction of that id and account was accepted.
    #[error("mismatch: the account has no such transaction")]
    NoSuchTransaction,
    /// The row has another amount.
    #[error("mismatch: the transaction's amount_cents is another")]
    Amount,
    /// The row has another currency.
    #[error("mismatch: the transaction's currency is another")]
    Currency,
    /// The row has another type.
    #[error("mismatch: the transaction's type is another")]
    Type,
    /// The transaction's account is gone.
    #[error("mismatch: there is no such account")]
    NoSuchAccount,
}

/// What the events themselves say of their transactions.
pub(super) fn taken_at_their_word(events: &[&Event]) -> HashMap<TransactionId, Accepted> {
    let accepted = |claim: &TransactionCreated| Accepted {
        row: TransactionRow {
            id: claim.transaction_id,
            account_id: claim.account_id,
            amount: claim.amount_cents,
            currency: claim.currency,
            transaction_type: claim.transaction_type,
            status: TransactionStatus::Pending,
        },
        dead_lettered: false,
        age_seconds: 0.0,
    };
    let claims = events.iter().map(|event| &event.transaction);
    claims
        .map(|claim| (claim.transaction_id, accepted(claim)))
        .collect()
}

/// How an event stands, before it is known whether it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its transaction is final, or its event is a dead letter.
    Over,
    /// It waits behind others of its account.
    Queued,
    /// It is to be posted.
    Open,
}

/// How an event stands; the error is why it may never be applied.
pub(super) fn standing(event: &Event, facts: &Facts) -> Result<Standing, Inapplicable> {
    let claim = &event.transaction;
    let accepted = facts
        .transactions
        .get(&claim.transaction_id)
        .filter(|accepted| accepted.row.account_id == claim.account_id)
        .ok_or(Inapplicable::NoSuchTransaction)?;
    compare(claim, &accepted.row)?;
    if !facts.accounts.contains_key(&claim.account_id) {
        return Err(Inapplicable::NoSuchAccount);
    }
    Ok(
        if accepted.row.status.is_final() || accepted.dead_lettered {
            Standing::Over
        } else if facts.queues.contains(&claim.account_id) {
            Standing::Queued
        } else {
            Standing::Open
        },
    )
}

/// Decides event by event, in order. `unseen` are the events that were not closed before this slice.
pub(super) fn decide(
    events: &[&Event],
    mut facts: Facts,
    unseen: &HashSet<EventId>,
) -> Vec<Outcome> {
    events
        .iter()
        .map(|event| match standing(event, &facts) {
            Err(reason) => Outcome::Dead(reason),
            Ok(Standing::Over) => Outcome::Duplicate,
            Ok(_) if !unseen.contains(&event.id()) => {
                closed_without_an_end(event);
                Outcome::Duplicate
            }
            Ok(Standing::Queued) => Outcome::Parked,
            Ok(Standing::Open) => post(event, &mut facts),
        })
        .collect()
}

/// Event and transaction are closed by one commit. Whoever wrote one without the other may have posted,
/// too, so posting is not ours to guess; the transaction waits for somebody.
fn closed_without_an_end(event: &Event) {
    let claim = &event.transaction;
    error!(
        event_id = %event.id(), transaction_id = %claim.transaction_id,
        account_id = %claim.account_id,
        "an event counts as processed and its transaction is not final: it is not posted",
    );
}

/// Posts an open event: its account and its transaction are there.
fn post(event: &Event, facts: &mut Facts) -> Outcome {
    let claim = &event.transaction;
    let (Some(account), Some(accepted)) = (
        facts.accounts.get_mut(&claim.account_id),
        facts.transactions.get_mut(&claim.transaction_id),
    ) else {
        return Outcome::Dead(Inapplicable::NoSuchAccount);
    };
    let posting = ledger::post(account, &accepted.row);
    // A repeat within the slice finds its transaction final.
    accepted.row.status = posting.status();
    Outcome::Closed {
        posting,
        age_seconds: accepted.age_seconds,
    }
}

fn compare(claim: &TransactionCreated, row: &TransactionRow) -> Result<(), Inapplicable> {
    if claim.amount_cents != row.amount {
        Err(Inapplicable::Amount)
    } else if claim.currency != row.currency {
        Err(Inapplicable::Currency)
    } else if claim.transaction_type != row.transaction_type {
        Err(Inapplicable::Type)
    } else {
        Ok(())
    }
}

/// What becomes of each record, given what becomes of the events among them.
pub(super) fn of_records(items: &[Item], events: Vec<Outcome>) -> Vec<Outcome> {
    if events.len() == items.len() {
        return events;
    }
    let mut events = events.into_iter();
    let of = |item: &Item| item.event().and_then(|_| events.next());
    let outcomes = items.iter().map(of);
    outcomes
        .map(|outcome| outcome.unwrap_or(Outcome::Unusable))
        .collect()
}

#[cfg(test)]
mod tests;
