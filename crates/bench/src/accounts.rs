//! Accounts to post to, opened and funded by SQL: through the api it would take longer than what is
//! measured.

use sqlx::PgPool;
use uuid::Uuid;

/// What each account holds at the start, in cents. It has come through the ledger as everything
/// else, as one CREDIT for each account.
pub const FUNDS_CENTS: i64 = 1_000_000;

/// How many accounts one statement opens.
const ACCOUNTS_A_STATEMENT: usize = 10_000;

/// Opens so many accounts that hold EUR, and hands over their ids.
pub async fn open(database: &PgPool, accounts: usize) -> Result<Vec<Uuid>, sqlx::Error> {
    let ids: Vec<_> = (0..accounts).map(|_| Uuid::now_v7()).collect();
    for ids in ids.chunks(ACCOUNTS_A_STATEMENT) {
        open_some(database, ids).await?;
    }
    Ok(ids)
}

async fn open_some(database: &PgPool, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    let transactions: Vec<_> = ids.iter().map(|_| Uuid::now_v7()).collect();
    sqlx::query(
        "WITH opened AS (
             SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS opened (account_id, transaction_id)
         ), account AS (
             INSERT INTO accounts (id, currency, balance_cents, entry_count)
             SELECT account_id, 'EUR', $3, 1 FROM opened
         ), transaction AS (
             INSERT INTO transactions (id, account_id, amount_cents, processed_at, currency, type,
                                       status, idempotency_key)
             SELECT transaction_id, account_id, $3, now(), 'EUR', 'CREDIT', 'PROCESSED', 'funds'
               FROM opened
         ), event AS (
             INSERT INTO processed_events (event_id, account_id, transaction_id)
             SELECT transaction_id, account_id, transaction_id FROM opened
         )
         INSERT INTO ledger_entries (account_id, entry_no, transaction_id, amount_cents,
                                     balance_after_cents)
         SELECT account_id, 1, transaction_id, $3, $3 FROM opened",
    )
    .bind(ids)
    .bind(&transactions)
    .bind(FUNDS_CENTS)
    .execute(database)
    .await?;
    Ok(())
}
