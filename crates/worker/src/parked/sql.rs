//! The statement that parks. Its caller begins and commits.

use sqlx::PgConnection;
use uuid::Uuid;

use super::FirstFailure;
use crate::{
    event::{Columns, Event},
    slice::ApplyError,
};

/// What [`park`] did.
pub(super) struct Parked {
    /// The events that were not parked before.
    pub(super) event_ids: Vec<Uuid>,
    /// How many transactions wait with them.
    pub(super) transactions: i64,
    /// How many accounts count them.
    pub(super) accounts: i64,
}

/// Writes events at the end of their accounts' queues, in their order; those that are there already stay
/// where they are. The due time is told by the database's clock, and only a head has one.
pub(super) async fn park(
    connection: &mut PgConnection,
    topic: &str,
    events: &[&Event],
    head: Option<&FirstFailure>,
) -> Result<Parked, ApplyError> {
    let records = Columns::of(events.iter().map(|event| (event.place, &event.raw)))?;
    let claims = events.iter().map(|event| &event.transaction);
    let (ids, account_ids): (Vec<Uuid>, Vec<Uuid>) = claims
        .map(|claim| (claim.transaction_id.0, claim.account_id.0))
        .unzip();
    let attempts = i32::from(head.is_some());
    let parked = sqlx::query!(
        r#"WITH parked AS (
               INSERT INTO parked_events
                      (account_id, event_id, source_topic, source_partition, source_offset,
                       recorded_at, key, value, headers, attempts, next_attempt_at,
                       first_failed_at, last_error)
               SELECT account_id, event_id, $1, source_partition, source_offset,
                      recorded_at, key, value, headers::json, $2, now() + make_interval(secs => $3),
                      CASE WHEN $2 > 0 THEN now() END, $4
                 FROM unnest($5::uuid[], $6::uuid[], $7::integer[], $8::bigint[], $9::timestamptz[],
                             $10::bytea[], $11::bytea[], $12::text[]) WITH ORDINALITY
                      AS event (account_id, event_id, source_partition, source_offset, recorded_at,
                                key, value, headers, place)
                ORDER BY place
                   ON CONFLICT (event_id, account_id) DO NOTHING
               RETURNING account_id, event_id
           ), waiting AS (
               UPDATE transactions SET status = 'PROCESSING'
                 FROM parked
                WHERE transactions.id = parked.event_id
                  AND transactions.account_id IS NOT DISTINCT FROM parked.account_id
                  AND transactions.status IN ('PENDING', 'PROCESSING')
                  AND transactions.failure_reason IS NULL
               RETURNING 1
           ), counted AS (
               UPDATE accounts
                  SET parked_count = parked_count + queue.events, updated_at = now()
                 FROM (SELECT account_id, count(*)::integer AS events FROM parked GROUP BY account_id)
                      AS queue
                WHERE accounts.id = queue.account_id
               RETURNING 1
           )
           SELECT coalesce(array_agg(event_id), '{}') AS "event_ids!",
                  (SELECT count(*) FROM waiting) AS "transactions!",
                  (SELECT count(*) FROM counted) AS "accounts!"
             FROM parked"#,
        topic,
        attempts,
        head.map(|failure| failure.pause.as_secs_f64()),
        head.map(|failure| failure.error.as_str()),
        &account_ids,
        &ids,
        &records.partitions,
        &records.offsets,
        &records.recorded_at as &[Option<chrono::DateTime<chrono::Utc>>],
        &records.keys as &[Option<&[u8]>],
        &records.values as &[Option<&[u8]>],
        &records.headers,
    )
    .fetch_one(connection)
    .await?;
    Ok(Parked {
        event_ids: parked.event_ids,
        transactions: parked.transactions,
        accounts: parked.accounts,
    })
}
