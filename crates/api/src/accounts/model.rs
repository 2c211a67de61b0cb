use chrono::{DateTime, Utc};
use common::types::{AccountId, AccountStatus, TransactionId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::schemas;

/// An account as it is stored, and as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Account {
    /// Made by the client or by the api.
    #[schema(value_type = uuid::Uuid)]
    pub id: AccountId,
    /// ISO 4217; never changes.
    #[schema(value_type = schemas::Currency)]
    pub currency: String,
    /// The sum of its entries, in minor units of the currency.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub balance_cents: i64,
    /// Whether it takes transactions.
    #[schema(value_type = schemas::AccountStatus)]
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
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    pub entry_no: i64,
    /// Minor units; positive for a CREDIT, negative for a DEBIT.
    pub amount_cents: i64,
    /// The account's balance behind this entry, minor units.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub balance_after_cents: i64,
    /// The transaction that was posted.
    #[schema(value_type = uuid::Uuid)]
    pub transaction_id: TransactionId,
    /// When it was posted.
    pub created_at: DateTime<Utc>,
}

/// A page of accounts.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it exists for its schema; `Page` is what is sent, and generators stumble over generic names"
)]
pub(crate) struct AccountPage {
    /// In the order of their ids; there may be fewer than the limit although more follow.
    data: Vec<Account>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A page of an account's statement.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it exists for its schema; `Page` is what is sent, and generators stumble over generic names"
)]
pub(crate) struct EntryPage {
    /// The newest first.
    data: Vec<Entry>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next_cursor: Option<String>,
}
