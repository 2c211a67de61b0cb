use common::types::{AccountId, AccountStatus, Currency, TransactionId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Account, Entry};

/// Opens an account; none if there is one of this id.
pub(super) async fn open(
    connection: &mut PgConnection,
    id: AccountId,
    currency: Currency,
) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        r#"INSERT INTO accounts (id, currency) VALUES ($1, $2)
           ON CONFLICT (id) DO NOTHING
           RETURNING id AS "id: AccountId", currency, balance_cents, status AS "status: AccountStatus",
                     entry_count, created_at, updated_at"#,
        id.0,
        currency.as_str(),
    )
    .fetch_optional(connection)
    .await
}

pub(super) async fn find(
    connection: &mut PgConnection,
    id: AccountId,
) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        r#"SELECT id AS "id: AccountId", currency, balance_cents, status AS "status: AccountStatus",
                  entry_count, created_at, updated_at
             FROM accounts
            WHERE id = $1"#,
        id.0,
    )
    .fetch_optional(connection)
    .await
}

/// Sets the status, unless it is that already: a repeat writes nothing.
pub(super) async fn set_status(
    connection: &mut PgConnection,
    id: AccountId,
    status: AccountStatus,
) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        r#"UPDATE accounts SET status = $2, updated_at = now()
            WHERE id = $1 AND status <> $2
        RETURNING id AS "id: AccountId", currency, balance_cents, status AS "status: AccountStatus",
                  entry_count, created_at, updated_at"#,
        id.0,
        status.as_str(),
    )
    .fetch_optional(connection)
    .await
}

/// The account that stands so many behind an id, in id order: where a bounded search ends.
pub(super) async fn nth_behind(
    connection: &mut PgConnection,
    after: Uuid,
    rows: i64,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id FROM accounts WHERE id > $1 ORDER BY id OFFSET $2 LIMIT 1",
        after,
        rows,
    )
    .fetch_optional(connection)
    .await
}

/// Accounts behind an id and up to another, in id order. Both bounds are plain comparisons, so that
/// the index ends the scan under a generic plan too.
pub(super) async fn list(
    connection: &mut PgConnection,
    after: Uuid,
    last: Uuid,
    status: Option<AccountStatus>,
    limit: i64,
) -> Result<Vec<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        r#"SELECT id AS "id: AccountId", currency, balance_cents, status AS "status: AccountStatus",
                  entry_count, created_at, updated_at
             FROM accounts
            WHERE id > $1
              AND id <= $2
              AND ($3::text IS NULL OR status = $3)
            ORDER BY id
            LIMIT $4"#,
        after,
        last,
        status.map(AccountStatus::as_str),
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Entries below a number, newest first.
pub(super) async fn list_entries(
    connection: &mut PgConnection,
    account_id: AccountId,
    below: i64,
    limit: i64,
) -> Result<Vec<Entry>, sqlx::Error> {
    sqlx::query_as!(
        Entry,
        r#"SELECT entry_no, amount_cents, balance_after_cents,
                  transaction_id AS "transaction_id: TransactionId", created_at
             FROM ledger_entries
            WHERE account_id = $1 AND entry_no < $2
            ORDER BY entry_no DESC
            LIMIT $3"#,
        account_id.0,
        below,
        limit,
    )
    .fetch_all(connection)
    .await
}
