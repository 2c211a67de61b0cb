use chrono::{DateTime, Utc};
use common::types::{AccountId, FailureReason, TransactionId, TransactionStatus, TransactionType};
use serde::Serialize;

/// A transaction as it is stored, and as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transaction {
    /// A UUID version 7.
    pub id: TransactionId,
    /// The account it is posted to.
    pub account_id: AccountId,
    /// Minor units of the currency, at least 1.
    pub amount_cents: i64,
    /// ISO 4217.
    pub currency: String,
    /// Whether the amount is added or taken.
    #[serde(rename = "type")]
    pub transaction_type: TransactionType,
    /// How far it has come.
    pub status: TransactionStatus,
    /// The key under which it was sent, unique for its account.
    pub idempotency_key: String,
    /// Why it was refused; only of a FAILED one.
    pub failure_reason: Option<FailureReason>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it was posted or refused.
    pub processed_at: Option<DateTime<Utc>>,
}
