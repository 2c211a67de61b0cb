//! What becomes of each event of a slice, decided from what was read under the locks.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use common::types::{AccountId, EventId, TransactionCreated, TransactionId, TransactionStatus};
use thiserror::Error;
use tracing::error;

use crate::{
    event::Event,
    ledger::{self, AccountState, Posting, TransactionRow},
};

/// What the database says about a slice's accounts (locked) and transactions.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) accounts: HashMap<AccountId, AccountState>,
    pub(super) transactions: HashMap<TransactionId, Accepted>,
}

/// A transaction's row and its age.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    pub(super) row: TransactionRow,
    /// How long ago it was accepted, by the database's clock, when it was read.
    pub(super) age_seconds: f64,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// It ended its transaction.
    Closed {
        /// How.
        posting: Posting,
        /// How long ago the transaction had been accepted, by the database's clock.
        age_seconds: f64,
    },
    /// It had been closed before, and changed nothing.
    Duplicate,
}

impl Outcome {
    /// How it ended its transaction, if it did.
    #[must_use]
    pub const fn posting(&self) -> Option<Posting> {
        match self {
            Self::Closed { posting, .. } => Some(*posting),
            Self::Duplicate => None,
        }
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

/// What the events themselves say of their transactions, and that none was closed before.
pub(super) fn taken_at_their_word(
    accounts: HashMap<AccountId, AccountState>,
    events: &[Event],
) -> (Facts, HashSet<EventId>) {
    let claims = events.iter().map(|event| &event.transaction);
    let row = |claim: &TransactionCreated| Accepted {
        row: TransactionRow {
            id: claim.transaction_id,
            account_id: claim.account_id,
            amount: claim.amount_cents,
            currency: claim.currency,
            transaction_type: claim.transaction_type,
            status: TransactionStatus::Pending,
        },
        age_seconds: 0.0,
    };
    let facts = Facts {
        accounts,
        transactions: claims
            .map(|claim| (claim.transaction_id, row(claim)))
            .collect(),
    };
    (facts, events.iter().map(Event::id).collect())
}

/// Decides event by event, in order. `unseen` are the events that were not closed before this slice.
///
/// # Errors
/// The position of the first event that may not be applied, and why.
pub(super) fn decide(
    events: &[Event],
    mut facts: Facts,
    unseen: &HashSet<EventId>,
) -> Result<Vec<Outcome>, super::ApplyError> {
    events
        .iter()
        .enumerate()
        .map(|(index, event)| {
            decide_one(event, &mut facts, unseen)
                .map_err(|reason| super::ApplyError::Inapplicable { index, reason })
        })
        .collect()
}

fn decide_one(
    event: &Event,
    facts: &mut Facts,
    unseen: &HashSet<EventId>,
) -> Result<Outcome, Inapplicable> {
    let claim = &event.transaction;
    let accepted = facts
        .transactions
        .get_mut(&claim.transaction_id)
        .filter(|accepted| accepted.row.account_id == claim.account_id)
        .ok_or(Inapplicable::NoSuchTransaction)?;
    compare(claim, &accepted.row)?;
    let account = facts
        .accounts
        .get_mut(&claim.account_id)
        .ok_or(Inapplicable::NoSuchAccount)?;
    if accepted.row.status.is_final() {
        return Ok(Outcome::Duplicate);
    }
    if !unseen.contains(&event.id()) {
        // Event and transaction are closed by one commit. Whoever wrote one without the other may
        // have posted, too, so posting is not ours to guess; the transaction waits for somebody.
        error!(
            event_id = %event.id(), transaction_id = %claim.transaction_id,
            account_id = %claim.account_id,
            "an event counts as processed and its transaction is not final: it is not posted",
        );
        return Ok(Outcome::Duplicate);
    }
    let posting = ledger::post(account, &accepted.row);
    // A repeat within the slice finds its transaction final.
    accepted.row.status = posting.status();
    Ok(Outcome::Closed {
        posting,
        age_seconds: accepted.age_seconds,
    })
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

#[cfg(test)]
mod tests;
