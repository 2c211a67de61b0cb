//! The retry loop's statements. Its caller begins and commits. All times are the database's.
//!
//! Each finds its rows by key or by the index of due heads, however many events are parked: key, value
//! and headers of a record move within the database alone.

use std::time::Duration;

use common::types::{
    AccountId, AccountStatus, AmountCents, EventId, FailureReason, TransactionId,
    TransactionStatus, TransactionType,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::queue::{Head, Locked, Parked, Removal, Removed, Waiting};
use crate::{
    ledger::{AccountState, TransactionRow},
    slice::currency,
};

/// Reads the heads that are due, the longest due first, and how many events wait behind each. It takes
/// no lock: what it finds is looked at again behind the locks.
pub(super) async fn due_heads(
    connection: &mut PgConnection,
    heads_max: i64,
) -> Result<Vec<Head>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT head.account_id, head.position, accounts.parked_count
             FROM (SELECT account_id, position, next_attempt_at
                     FROM parked_events
                    WHERE next_attempt_at <= now()
                    ORDER BY next_attempt_at
                    LIMIT $1) AS head
             JOIN accounts ON accounts.id = head.account_id
            ORDER BY head.next_attempt_at"#,
        heads_max,
    )
    .fetch_all(connection)
    .await?;
    let heads = rows.into_iter().map(|row| Head {
        account: AccountId(row.account_id),
        position: row.position,
        queued: row.parked_count,
    });
    Ok(heads.collect())
}

/// How long until the next head is due; none where no event is parked.
pub(super) async fn next_due(
    connection: &mut PgConnection,
) -> Result<Option<Duration>, sqlx::Error> {
    let seconds = sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM next_attempt_at - clock_timestamp())::float8 AS "seconds!"
             FROM parked_events
            WHERE next_attempt_at IS NOT NULL
            ORDER BY next_attempt_at
            LIMIT 1"#
    )
    .fetch_optional(connection)
    .await?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// Locks at most so many accounts of these heads until the transaction ends, the first ones that
/// nobody else holds, and reads them. Nobody waits here: two workers, or a worker and its own slices,
/// never take one account, so no order of the locks is needed either.
pub(super) async fn take_accounts(
    connection: &mut PgConnection,
    heads: &[Head],
    accounts_max: i64,
) -> Result<Vec<Locked>, sqlx::Error> {
    let (ids, positions): (Vec<Uuid>, Vec<i64>) = heads
        .iter()
        .map(|head| (head.account.0, head.position))
        .unzip();
    let rows = sqlx::query!(
        r#"SELECT accounts.id, currency, status AS "status: AccountStatus", balance_cents,
                  entry_count, parked_count, head.position AS "head_position!"
             FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY
                  AS head (account_id, position, number)
             JOIN accounts ON accounts.id = head.account_id
            ORDER BY head.number
            LIMIT $3
              FOR NO KEY UPDATE OF accounts SKIP LOCKED"#,
        &ids,
        &positions,
        accounts_max,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Locked {
                account: AccountId(row.id),
                head_position: row.head_position,
                queued: row.parked_count,
                state: AccountState {
                    currency: currency(row.currency)?,
                    status: row.status,
                    balance_cents: row.balance_cents,
                    entry_count: row.entry_count,
                },
            })
        })
        .collect()
}

/// Locks one account, and waits for it, so that what becomes of its head can be written down.
/// Whoever waits here holds no other lock, so the wait is never one of a circle.
pub(super) async fn lock_account(
    connection: &mut PgConnection,
    account: AccountId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE",
        account.0
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Reads the beginning of each account's queue, in order, behind the accounts' locks, with the
/// transactions' rows, which are the authority. It starts at the position that the head was seen at,
/// so that it does not walk over what was removed before.
///
/// (`IS NOT DISTINCT FROM` keeps the planner from the listing index; see `slice::sql`.)
pub(super) async fn queues(
    connection: &mut PgConnection,
    waiting: &[Waiting],
) -> Result<Vec<Parked>, sqlx::Error> {
    let ids: Vec<Uuid> = waiting.iter().map(|queue| queue.account.0).collect();
    let positions: Vec<i64> = waiting.iter().map(|queue| queue.head_position).collect();
    let limits: Vec<i64> = waiting.iter().map(|queue| queue.events_max).collect();
    let rows = sqlx::query!(
        r#"SELECT parked.account_id, parked.position, parked.event_id, parked.attempts,
                  coalesce(parked.next_attempt_at <= now(), false) AS "is_due!",
                  transactions.amount_cents AS "amount?: AmountCents",
                  transactions.currency AS "currency?",
                  transactions.type AS "transaction_type?: TransactionType",
                  transactions.status AS "status?: TransactionStatus",
                  transactions.failure_reason AS "failure_reason?: FailureReason"
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
                  AS queue (account_id, head_position, events_max, number)
            CROSS JOIN LATERAL (
                  SELECT account_id, position, event_id, attempts, next_attempt_at
                    FROM parked_events
                   WHERE account_id = queue.account_id AND position >= queue.head_position
                   ORDER BY position
                   LIMIT queue.events_max) AS parked
             LEFT JOIN transactions
               ON transactions.id = parked.event_id
              AND transactions.account_id IS NOT DISTINCT FROM parked.account_id
            ORDER BY queue.number, parked.position"#,
        &ids,
        &positions,
        &limits,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let account_id = AccountId(row.account_id);
            let transaction = match (row.amount, row.currency, row.transaction_type, row.status) {
                (Some(amount), Some(code), Some(transaction_type), Some(status)) => {
                    Some(TransactionRow {
                        id: TransactionId(row.event_id),
                        account_id,
                        amount,
                        currency: currency(code)?,
                        transaction_type,
                        status,
                    })
                }
                _ => None,
            };
            Ok(Parked {
                account: account_id,
                position: row.position,
                event: EventId(row.event_id),
                attempts: row.attempts,
                is_due: row.is_due,
                is_dead_lettered: row.failure_reason == Some(FailureReason::DeadLettered),
                transaction,
            })
        })
        .collect()
}

/// Removes the beginnings of queues, which came to their end, and makes the event behind each its
/// queue's head, due at once. The caller compares the counts with what it planned.
pub(super) async fn remove(
    connection: &mut PgConnection,
    removals: &[Removal],
) -> Result<Removed<i64>, sqlx::Error> {
    let ids: Vec<Uuid> = removals.iter().map(|removal| removal.account.0).collect();
    let firsts: Vec<i64> = removals.iter().map(|removal| removal.first).collect();
    let lasts: Vec<i64> = removals.iter().map(|removal| removal.last).collect();
    let counts: Vec<i32> = removals.iter().map(|removal| removal.events).collect();
    let removed = sqlx::query!(
        r#"WITH gone AS (
               DELETE FROM parked_events
                USING unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS part (account_id, first, last)
                WHERE parked_events.account_id = part.account_id
                  AND parked_events.position BETWEEN part.first AND part.last
               RETURNING 1
           ), counted AS (
               UPDATE accounts
                  SET parked_count = parked_count - part.events, updated_at = now()
                 FROM unnest($1::uuid[], $4::integer[]) AS part (account_id, events)
                WHERE accounts.id = part.account_id
               RETURNING 1
           ), promoted AS (
               UPDATE parked_events
                  SET next_attempt_at = now()
                 FROM unnest($1::uuid[], $3::bigint[]) AS part (account_id, last)
                CROSS JOIN LATERAL (
                      SELECT position
                        FROM parked_events AS behind
                       WHERE behind.account_id = part.account_id AND behind.position > part.last
                       ORDER BY position
                       LIMIT 1) AS next
                WHERE parked_events.account_id = part.account_id
                  AND parked_events.position = next.position
               RETURNING 1
           )
           SELECT (SELECT count(*) FROM gone) AS "events!",
                  (SELECT count(*) FROM counted) AS "accounts!",
                  (SELECT count(*) FROM promoted) AS "heads!""#,
        &ids,
        &firsts,
        &lasts,
        &counts,
    )
    .fetch_one(connection)
    .await?;
    Ok(Removed {
        events: removed.events,
        accounts: removed.accounts,
        heads: removed.heads,
    })
}

/// Writes down that a head failed once more, and when it is tried again; answers whether it was still
/// the head that failed.
pub(super) async fn record_failure(
    connection: &mut PgConnection,
    head: &Parked,
    pause: Duration,
    error: &str,
) -> Result<bool, sqlx::Error> {
    let written = sqlx::query!(
        "UPDATE parked_events
            SET attempts = attempts + 1,
                next_attempt_at = now() + make_interval(secs => $4),
                first_failed_at = coalesce(first_failed_at, now()),
                last_error = $5
          WHERE account_id = $1 AND position = $2 AND attempts = $3",
        head.account.0,
        head.position,
        head.attempts,
        pause.as_secs_f64(),
        error,
    )
    .execute(connection)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// Reads how the heads of other accounts' queues failed: of those whose first failure is no longer ago
/// than that, if it matters; the latest due ones, up to a limit, as those failed last.
pub(super) async fn failures_of_others(
    connection: &mut PgConnection,
    account: AccountId,
    since: Option<Duration>,
    heads_max: i64,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT last_error AS "last_error!"
             FROM (SELECT account_id, first_failed_at, last_error
                     FROM parked_events
                    WHERE next_attempt_at IS NOT NULL
                    ORDER BY next_attempt_at DESC
                    LIMIT $1) AS head
            WHERE account_id <> $2
              AND last_error IS NOT NULL
              AND first_failed_at > coalesce(now() - make_interval(secs => $3), '-infinity')"#,
        heads_max,
        account.0,
        since.map(|since| since.as_secs_f64()) as Option<f64>,
    )
    .fetch_all(connection)
    .await
}
