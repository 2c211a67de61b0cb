//! The statement that posts. Its caller begins and commits.

use std::collections::HashMap;

use common::{
    outbox::{self, AGGREGATE_TYPE, OutboxEvent},
    types::TransactionId,
};
use sqlx::PgConnection;

use super::changes::{Changes, Rows};

/// The events that tell how transactions ended, in the order of the postings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Results<'a> {
    pub(super) topic: &'a str,
    pub(super) events: &'a [OutboxEvent],
}

/// What [`post`] did.
pub(super) struct Posted {
    pub(super) rows: Rows,
    /// How long ago each transaction was accepted, in seconds by the database's clock.
    pub(super) ages_seconds: HashMap<TransactionId, f64>,
}

/// Writes what was decided, in one round trip: entries, balances, final states and the events that
/// tell of them. Where their events are not closed yet it closes them; one
/// that was closed before is a unique violation.
///
/// A transaction is written only if its row says what its event says, is not final and not
/// dead-lettered: that keeps a final one as it is, even against a decision made from something stale,
/// a dead letter to those who replay or discard it, and a forged event from making money. So the statement has done what was planned exactly if its counts are the planned
/// ones; otherwise its caller rolls back. (`IS NOT DISTINCT FROM` keeps the planner from the listing index; see `slice::sql`.)
pub(super) async fn post(
    connection: &mut PgConnection,
    changes: &Changes,
    results: Results<'_>,
    closes_events: bool,
) -> Result<Posted, sqlx::Error> {
    let (entries, accounts) = (&changes.entries, &changes.accounts);
    let transactions = &changes.transactions;
    let announced = outbox::Columns::of(results.events);
    let currencies: Vec<&str> = transactions
        .currencies
        .iter()
        .map(|currency| currency.as_str())
        .collect();
    let posted = sqlx::query!(
        r#"WITH closed AS (
               INSERT INTO processed_events (event_id, account_id, transaction_id)
               SELECT id, account_id, id FROM unnest($9::uuid[], $10::uuid[]) AS event (id, account_id)
                WHERE $16
           ), entry AS (
               INSERT INTO ledger_entries
                      (account_id, entry_no, transaction_id, amount_cents, balance_after_cents)
               SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[])
               RETURNING 1
           ), account AS (
               UPDATE accounts
                  SET balance_cents = next.balance_cents, entry_count = next.entry_count,
                      updated_at = now()
                 FROM unnest($6::uuid[], $7::bigint[], $8::bigint[])
                      AS next (id, balance_cents, entry_count)
                WHERE accounts.id = next.id
               RETURNING 1
           ), transaction AS (
               UPDATE transactions
                  SET status = next.status, failure_reason = next.failure_reason,
                      processed_at = now()
                 FROM unnest($9::uuid[], $10::uuid[], $11::bigint[], $12::text[], $13::text[],
                             $14::text[], $15::text[])
                      AS next (id, account_id, amount_cents, currency, type, status, failure_reason)
                WHERE transactions.id = next.id
                  AND transactions.account_id IS NOT DISTINCT FROM next.account_id
                  AND transactions.amount_cents = next.amount_cents
                  AND transactions.currency = next.currency
                  AND transactions.type = next.type
                  AND transactions.status IN ('PENDING', 'PROCESSING')
                  AND transactions.failure_reason IS NULL
               RETURNING transactions.id,
                         extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_seconds
           ), announced AS (
               INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic,
                                          partition_key, aggregate_type, event_type, payload)
               SELECT event_id, account_id, aggregate_id, lane, $17, account_id::text, $18,
                      event_type, payload::json
                 FROM unnest($19::uuid[], $20::uuid[], $21::uuid[], $22::smallint[], $23::text[],
                             $24::text[]) WITH ORDINALITY
                      AS event (event_id, account_id, aggregate_id, lane, event_type, payload,
                                position)
                ORDER BY position
               RETURNING 1
           )
           SELECT (SELECT count(*) FROM entry) AS "entries!",
                  (SELECT count(*) FROM account) AS "accounts!",
                  (SELECT count(*) FROM announced) AS "results!",
                  count(*) AS "transactions!",
                  coalesce(array_agg(id), '{}') AS "ids!",
                  coalesce(array_agg(age_seconds), '{}') AS "ages_seconds!: Vec<f64>"
             FROM transaction"#,
        &entries.account_ids,
        &entries.entry_nos,
        &entries.transaction_ids,
        &entries.amounts_cents,
        &entries.balances_after_cents,
        &accounts.ids,
        &accounts.balances_cents,
        &accounts.entry_counts,
        &transactions.ids,
        &transactions.account_ids,
        &transactions.amounts_cents,
        &currencies as &[&str],
        &transactions.types as &[&str],
        &transactions.statuses as &[&str],
        &transactions.failure_reasons as &[Option<&str>],
        closes_events,
        results.topic,
        AGGREGATE_TYPE,
        &announced.event_ids,
        &announced.account_ids,
        &announced.aggregate_ids,
        &announced.lanes,
        &announced.types as &[&str],
        &announced.payloads as &[&str],
    )
    .fetch_one(connection)
    .await?;
    let ids = posted.ids.into_iter().map(TransactionId);
    Ok(Posted {
        rows: Rows {
            entries: posted.entries,
            accounts: posted.accounts,
            transactions: posted.transactions,
            results: posted.results,
        },
        ages_seconds: ids.zip(posted.ages_seconds).collect(),
    })
}
