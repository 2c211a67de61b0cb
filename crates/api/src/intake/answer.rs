use thiserror::Error;

use crate::transactions::Transaction;

/// What became of a request that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The transaction was written and committed for this request.
    Created(Transaction),
    /// The key was used before for the same content: the original, in its present state.
    Replayed(Transaction),
    /// Nothing was written, and the key is not used up.
    Refused(Refusal),
}

/// Why a transaction was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such account.
    UnknownAccount,
    /// The account takes no transactions.
    AccountSuspended,
    /// The account holds another currency.
    CurrencyMismatch {
        /// The one it holds.
        account_currency: String,
    },
    /// The key was used before for other content.
    KeyReused,
}

/// Why a request was not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IntakeError {
    /// The queue is full. Nothing was written.
    #[error("the intake queue is full")]
    Overloaded,
    /// The database could not be reached in time. Nothing was written.
    #[error("the transaction could not be written in time")]
    NotWritten,
    /// The transaction was on its way to the database when the deadline passed or the connection
    /// broke: it may have been written. Sending it again with the same key tells.
    #[error("it is not known whether the transaction was written")]
    OutcomeUnknown,
    /// The database refuses this very transaction. Nothing was written; the reason is in the log.
    #[error("the database refused the transaction")]
    Failed,
}

/// The queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the intake queue is full")]
pub struct Overloaded;
