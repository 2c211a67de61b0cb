use chrono::{DateTime, Utc};
use common::types::{AccountId, FailureReason, TransactionId, TransactionStatus, TransactionType};
use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::schemas;

/// A transaction as it is stored, and as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Transaction {
    /// A UUID version 7.
    #[schema(value_type = uuid::Uuid)]
    pub id: TransactionId,
    /// The account it is posted to.
    #[schema(value_type = uuid::Uuid)]
    pub account_id: AccountId,
    /// Minor units of the currency, at least 1.
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    pub amount_cents: i64,
    /// ISO 4217.
    #[schema(value_type = schemas::Currency)]
    pub currency: String,
    /// Whether the amount is added or taken.
    #[serde(rename = "type")]
    #[schema(value_type = schemas::TransactionType)]
    pub transaction_type: TransactionType,
    /// How far it has come.
    #[schema(value_type = schemas::TransactionStatus)]
    pub status: TransactionStatus,
    /// The key under which it was sent, unique for its account.
    #[schema(min_length = 1, max_length = 255)]
    pub idempotency_key: String,
    /// Why it was refused, of a FAILED one; or that it waits for an operator, of a PROCESSING one.
    #[schema(required, schema_with = schemas::failure_reason)]
    pub failure_reason: Option<FailureReason>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it was posted, refused or discarded; only of a PROCESSED or FAILED one.
    #[schema(required)]
    pub processed_at: Option<DateTime<Utc>>,
}

/// A page of transactions.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it exists for its schema; `Page` is what is sent, and generators stumble over generic names"
)]
pub(crate) struct TransactionPage {
    /// The newest first; there may be fewer than the limit although more follow.
    data: Vec<Transaction>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next_cursor: Option<String>,
}
