use common::types::{AccountId, FailureReason, TransactionId, TransactionStatus, TransactionType};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Transaction;

pub(super) async fn find(
    connection: &mut PgConnection,
    id: TransactionId,
) -> Result<Option<Transaction>, sqlx::Error> {
    sqlx::query_as!(
        Transaction,
        r#"SELECT id AS "id: TransactionId", account_id AS "account_id: AccountId", amount_cents, currency,
                  type AS "transaction_type: TransactionType", status AS "status: TransactionStatus",
                  idempotency_key, failure_reason AS "failure_reason: FailureReason", created_at,
                  processed_at
             FROM transactions
            WHERE id = $1"#,
        id.0,
    )
    .fetch_optional(connection)
    .await
}

/// The transaction that stands so many behind an id, newest first: where a bounded search ends.
pub(super) async fn nth_below(
    connection: &mut PgConnection,
    below: Uuid,
    rows: i64,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id FROM transactions WHERE id < $1 ORDER BY id DESC OFFSET $2 LIMIT 1",
        below,
        rows,
    )
    .fetch_optional(connection)
    .await
}

/// Transactions of all accounts below an id and above another, newest first. Both bounds are plain
/// comparisons, so that the index ends the scan under a generic plan too.
pub(super) async fn list(
    connection: &mut PgConnection,
    below: Uuid,
    above: Uuid,
    transaction_type: Option<TransactionType>,
    limit: i64,
) -> Result<Vec<Transaction>, sqlx::Error> {
    sqlx::query_as!(
        Transaction,
        r#"SELECT id AS "id: TransactionId", account_id AS "account_id: AccountId", amount_cents, currency,
                  type AS "transaction_type: TransactionType", status AS "status: TransactionStatus",
                  idempotency_key, failure_reason AS "failure_reason: FailureReason", created_at,
                  processed_at
             FROM transactions
            WHERE id < $1
              AND id > $2
              AND ($3::text IS NULL OR type = $3)
            ORDER BY id DESC
            LIMIT $4"#,
        below,
        above,
        transaction_type.map(TransactionType::as_str),
        limit,
    )
    .fetch_all(connection)
    .await
}

/// As [`nth_below`], among the transactions of one account.
pub(super) async fn nth_below_of_account(
    connection: &mut PgConnection,
    account_id: AccountId,
    below: Uuid,
    rows: i64,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id FROM transactions
          WHERE account_id = $1 AND id < $2
          ORDER BY id DESC OFFSET $3 LIMIT 1",
        account_id.0,
        below,
        rows,
    )
    .fetch_optional(connection)
    .await
}

/// What a list of an account's transactions is narrowed to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    pub(super) status: Option<TransactionStatus>,
    pub(super) transaction_type: Option<TransactionType>,
}

/// As [`list`], among the transactions of one account.
pub(super) async fn list_of_account(
    connection: &mut PgConnection,
    account_id: AccountId,
    below: Uuid,
    above: Uuid,
    filter: Filter,
    limit: i64,
) -> Result<Vec<Transaction>, sqlx::Error> {
    sqlx::query_as!(
        Transaction,
        r#"SELECT id AS "id: TransactionId", account_id AS "account_id: AccountId", amount_cents, currency,
                  type AS "transaction_type: TransactionType", status AS "status: TransactionStatus",
                  idempotency_key, failure_reason AS "failure_reason: FailureReason", created_at,
                  processed_at
             FROM transactions
            WHERE account_id = $1
              AND id < $2
              AND id > $3
              AND ($4::text IS NULL OR status = $4)
              AND ($5::text IS NULL OR type = $5)
            ORDER BY id DESC
            LIMIT $6"#,
        account_id.0,
        below,
        above,
        filter.status.map(TransactionStatus::as_str),
        filter.transaction_type.map(TransactionType::as_str),
        limit,
    )
    .fetch_all(connection)
    .await
}
