//! A past for the accounts: transactions that ended before anything is measured, filled in by SQL.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::FUNDS_CENTS;

/// How many transactions one statement fills in.
const TRANSACTIONS_A_STATEMENT: i64 = 250_000;
/// What each of them has added, in cents.
const CREDIT_CENTS: i64 = 100;
/// How far they lie apart in time, in milliseconds.
const STEP_MS: i64 = 10;

/// Transactions from..to of a past of $3 in all, the account's turn after turn. Each table is filled
/// through its indexes, in the order of time, as it would have been by the services. Ids are UUIDs
/// of version 7: 48 bits of milliseconds, the version, and bits without order, as keys are, too.
const FILL: &str = "
    WITH past AS MATERIALIZED (
        SELECT at, account_id, key, entry_no,
               (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
                || substr(key, 1, 3) || '8' || substr(key, 4, 15))::uuid AS id
          FROM (SELECT $6 - ($3 - number) * $7 * interval '1 millisecond' AS at,
                       filled.id AS account_id, md5(number::text) AS key,
                       number / $4 + 2 AS entry_no
                  FROM generate_series($1::bigint, $2::bigint - 1) AS number
                  JOIN filled ON filled.place = number % $4) made
         ORDER BY at
    ), transaction AS (
        INSERT INTO transactions (id, account_id, amount_cents, created_at, processed_at, currency,
                                  type, status, idempotency_key)
        SELECT id, account_id, $5, at, at + interval '5 milliseconds', 'EUR', 'CREDIT', 'PROCESSED',
               key::uuid::text
          FROM past
    ), event AS (
        INSERT INTO processed_events (event_id, account_id, transaction_id, processed_at)
        SELECT id, account_id, id, at + interval '5 milliseconds' FROM past
    )
    INSERT INTO ledger_entries (account_id, entry_no, transaction_id, amount_cents,
                                balance_after_cents, created_at)
    SELECT account_id, entry_no, id, $5, $8 + (entry_no - 1) * $5, at + interval '5 milliseconds'
      FROM past";

/// What the accounts hold behind it.
const BALANCES: &str = "
    UPDATE accounts
       SET balance_cents = total.balance, entry_count = total.entries
      FROM (SELECT account_id, sum(amount_cents)::bigint AS balance, count(*) AS entries
              FROM ledger_entries GROUP BY account_id) total
     WHERE accounts.id = total.account_id";

/// Fills in so many finished transactions of accounts that hold their funds and no more.
pub async fn fill(database: &PgPool, accounts: &[Uuid], transactions: u64) -> anyhow::Result<()> {
    let mut connection = database.acquire().await?;
    remember(&mut connection, accounts).await?;
    let (all, accounts) = (i64::try_from(transactions)?, i64::try_from(accounts.len())?);
    let now: sqlx::types::chrono::DateTime<sqlx::types::chrono::Utc> =
        sqlx::query_scalar("SELECT now()")
            .fetch_one(&mut *connection)
            .await?;
    let mut from = 0;
    while from < all {
        let to = all.min(from + TRANSACTIONS_A_STATEMENT);
        sqlx::query(FILL)
            .bind(from)
            .bind(to)
            .bind(all)
            .bind(accounts)
            .bind(CREDIT_CENTS)
            .bind(now)
            .bind(STEP_MS)
            .bind(FUNDS_CENTS)
            .execute(&mut *connection)
            .await?;
        from = to;
    }
    sqlx::query(BALANCES).execute(&mut *connection).await?;
    sqlx::raw_sql("RESET synchronous_commit")
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// The accounts by their place in the list. Nothing here needs to outlive a crash.
async fn remember(connection: &mut PgConnection, accounts: &[Uuid]) -> Result<(), sqlx::Error> {
    let prepare = "SET synchronous_commit = off;
                   CREATE TEMPORARY TABLE filled (place bigint PRIMARY KEY, id uuid NOT NULL)";
    sqlx::raw_sql(prepare).execute(&mut *connection).await?;
    sqlx::query(
        "INSERT INTO filled
         SELECT place - 1, id FROM unnest($1::uuid[]) WITH ORDINALITY AS account (id, place)",
    )
    .bind(accounts)
    .execute(&mut *connection)
    .await?;
    sqlx::raw_sql("ANALYZE filled").execute(connection).await?;
    Ok(())
}
