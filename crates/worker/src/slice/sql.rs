//! The slice's statements. Its caller begins and commits.

use std::collections::{HashMap, HashSet};

use common::types::{
    AccountId, AccountStatus, AmountCents, Currency, EventId, FailureReason, TransactionId,
    TransactionStatus, TransactionType,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::plan::{Accepted, Facts};
use crate::{
    event::Event,
    ledger::{AccountState, TransactionRow},
};

/// Locks accounts until the transaction ends, and reads them: what they hold, and which have parked
/// events. A lock that does not touch the key
/// lets rows that only refer to the account pass.
pub(super) async fn lock_accounts(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Facts, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, currency, status AS "status: AccountStatus", balance_cents, entry_count,
                  parked_count
             FROM accounts
            WHERE id = ANY($1)
            ORDER BY id
              FOR NO KEY UPDATE"#,
        ids,
    )
    .fetch_all(connection)
    .await?;
    let mut facts = Facts::default();
    for row in rows {
        let id = AccountId(row.id);
        let state = AccountState {
            currency: currency(row.currency)?,
            status: row.status,
            balance_cents: row.balance_cents,
            entry_count: row.entry_count,
        };
        facts.accounts.insert(id, state);
        if row.parked_count > 0 {
            facts.queues.insert(id);
        }
    }
    Ok(facts)
}

/// Reads the events' transactions, behind the locks. Under READ COMMITTED it sees what other workers
/// made of them. Under SERIALIZABLE its snapshot may be older than the wait for the locks, but then
/// nothing comes of it: the lock on an account that was updated meanwhile ends in 40001, and so does
/// [`close_events`] where it meets what the snapshot does not show.
///
/// `IS NOT DISTINCT FROM` is an equality that no index serves: it keeps the planner from the listing
/// index, whose leading account id scatters a slice over hundreds of pages. In the primary key
/// neighbours in time are neighbours on a page: measured for 500 rows, 4 predicate locks on pages
/// that are full instead of 421 on pages that the api writes to, and half the time.
pub(super) async fn transactions(
    connection: &mut PgConnection,
    events: &[&Event],
) -> Result<HashMap<TransactionId, Accepted>, sqlx::Error> {
    let (ids, account_ids) = keys(events);
    let rows = sqlx::query!(
        r#"SELECT transactions.id, transactions.account_id, currency,
                  amount_cents AS "amount: AmountCents",
                  type AS "transaction_type: TransactionType",
                  status AS "status: TransactionStatus",
                  failure_reason AS "failure_reason: FailureReason",
                  extract(epoch FROM clock_timestamp() - created_at)::float8 AS "age_seconds!"
             FROM unnest($1::uuid[], $2::uuid[]) AS event (id, account_id)
             JOIN transactions
               ON transactions.id = event.id
              AND transactions.account_id IS NOT DISTINCT FROM event.account_id"#,
        &ids,
        &account_ids,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let id = TransactionId(row.id);
            let accepted = TransactionRow {
                id,
                account_id: AccountId(row.account_id),
                amount: row.amount,
                currency: currency(row.currency)?,
                transaction_type: row.transaction_type,
                status: row.status,
            };
            Ok((
                id,
                Accepted {
                    row: accepted,
                    dead_lettered: row.failure_reason == Some(FailureReason::DeadLettered),
                    age_seconds: row.age_seconds,
                },
            ))
        })
        .collect()
}

/// Writes the events down as closed, and answers which of them were not yet.
pub(super) async fn close_events(
    connection: &mut PgConnection,
    events: &[&Event],
) -> Result<HashSet<EventId>, sqlx::Error> {
    let (ids, account_ids) = keys(events);
    // A `transaction.created` event bears the id of its transaction.
    let unseen = sqlx::query_scalar!(
        "INSERT INTO processed_events (event_id, account_id, transaction_id)
         SELECT id, account_id, id FROM unnest($1::uuid[], $2::uuid[]) AS event (id, account_id)
         ON CONFLICT DO NOTHING
         RETURNING event_id",
        &ids,
        &account_ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(unseen.into_iter().map(EventId).collect())
}

/// Which of these events were closed before, without closing the others.
pub(super) async fn closed(
    connection: &mut PgConnection,
    events: &[&Event],
) -> Result<HashSet<EventId>, sqlx::Error> {
    let (ids, account_ids) = keys(events);
    let closed = sqlx::query_scalar!(
        "SELECT processed_events.event_id
           FROM unnest($1::uuid[], $2::uuid[]) AS event (id, account_id)
           JOIN processed_events
             ON processed_events.event_id = event.id
            AND processed_events.account_id = event.account_id",
        &ids,
        &account_ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(closed.into_iter().map(EventId).collect())
}

fn keys(events: &[&Event]) -> (Vec<Uuid>, Vec<Uuid>) {
    events
        .iter()
        .map(|event| {
            (
                event.transaction.transaction_id.0,
                event.transaction.account_id.0,
            )
        })
        .unzip()
}

/// A CHECK lets only codes through; one that is unknown here is the schema's fault, not the event's.
pub(crate) fn currency(code: String) -> Result<Currency, sqlx::Error> {
    code.try_into()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
