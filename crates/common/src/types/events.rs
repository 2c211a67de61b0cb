//! The values of the events: what stands in a record's JSON. `docs/events.md` shows one of each.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{AccountId, AmountCents, Currency, FailureReason, TransactionId, TransactionType};

/// The version of every payload here. Fields may be added under one version (a consumer ignores
/// those it does not know); a change of meaning makes a new one.
pub const SCHEMA_VERSION: u32 = 1;

/// What an event says happened (`ce_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A transaction was accepted and waits to be posted.
    TransactionCreated,
    /// A transaction was posted to the ledger.
    TransactionProcessed,
    /// A transaction was refused.
    TransactionFailed,
}

/// A text that is the type of no event of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no event type of Postonce")]
pub struct UnknownEventType;

impl EventType {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TransactionCreated => "transaction.created",
            Self::TransactionProcessed => "transaction.processed",
            Self::TransactionFailed => "transaction.failed",
        }
    }
}

impl FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(name: &str) -> Result<Self, UnknownEventType> {
        [
            Self::TransactionCreated,
            Self::TransactionProcessed,
            Self::TransactionFailed,
        ]
        .into_iter()
        .find(|event_type| event_type.as_str() == name)
        .ok_or(UnknownEventType)
    }
}

/// `transaction.created`: posted by the worker if the transaction's row agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionCreated {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The transaction; also the event's id.
    pub transaction_id: TransactionId,
    /// The account; also the record's key.
    pub account_id: AccountId,
    /// Minor units of the currency.
    pub amount_cents: AmountCents,
    /// ISO 4217.
    pub currency: Currency,
    /// Whether the amount is added or taken.
    #[serde(rename = "type")]
    pub transaction_type: TransactionType,
}

/// `transaction.processed`: the transaction is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionProcessed {
    /// The instruction that was posted.
    #[serde(flatten)]
    pub transaction: TransactionCreated,
    /// The number of its ledger entry, from 1 for each account.
    pub entry_no: i64,
    /// The account's balance behind that entry, minor units.
    pub balance_after_cents: i64,
}

/// `transaction.failed`: the transaction was refused, nothing was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionFailed {
    /// The instruction that was refused.
    #[serde(flatten)]
    pub transaction: TransactionCreated,
    /// Why.
    pub failure_reason: FailureReason,
}
