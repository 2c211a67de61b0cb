use chrono::{DateTime, Utc};
use common::types::{AccountId, AccountStatus, TransactionId};
use serde::Serialize;
use utoipa::ToSchema;

/// An account as it is stored, and as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Account {
    /// Made by the client or by the api.
    #[schema(value_type = uuid::Uuid)]
    pub id: AccountId,
    /// ISO 4217; never changes.
    #[schema(pattern = "^[A-Z]{3}$", min_length = 3, max_length = 3)]
    pub currency: String,
    /// The sum of its entries, in minor units of the currency.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub balance_cents: i64,
    /// Whether it takes transactions.
    #[schema(value_type = String)]
    pub status: AccountStatus,
    /// How many entries its statement has.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub entry_count: i64,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When its balance or status last changed.
    pub updated_at: DateTime<Utc>,
}

/// A line of an account's statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Entry {
    /// From 1, without gaps.
    pub entry_no: i64,
    /// Minor units; positive for a CREDIT, negative for a DEBIT.
    pub amount_cents: i64,
    /// The account's balance behind this entry, minor units.
    pub balance_after_cents: i64,
    /// The transaction that was posted.
    #[schema(value_type = uuid::Uuid)]
    pub transaction_id: TransactionId,
    /// When it was posted.
    pub created_at: DateTime<Utc>,
}
