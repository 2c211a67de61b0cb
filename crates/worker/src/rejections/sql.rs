//! The statements of copies. Their caller begins and commits.

use common::types::FailureReason;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Rejected;
use crate::{
    event::{Columns, Event},
    slice::ApplyError,
};

/// Letters as one array a column.
#[derive(Clone, Debug, Default)]
pub(super) struct Letters {
    pub(super) ids: Vec<Uuid>,
    pub(super) account_ids: Vec<Uuid>,
    pub(super) event_ids: Vec<Uuid>,
}

/// Writes copies of records. The event of a dead letter that was replayed, and is rejected now, comes
/// back to its own letter.
pub(super) async fn insert(
    connection: &mut PgConnection,
    source_topic: &str,
    rejected: &[(&Event, FailureReason)],
) -> Result<Letters, ApplyError> {
    let ids: Vec<Uuid> = rejected.iter().map(|_| Uuid::now_v7()).collect();
    let claims = rejected.iter().map(|(event, _)| event.transaction);
    let (account_ids, event_ids): (Vec<Uuid>, Vec<Uuid>) = claims
        .map(|claim| (claim.account_id.0, claim.transaction_id.0))
        .unzip();
    let reasons: Vec<&str> = rejected.iter().map(|(_, reason)| reason.as_str()).collect();
    let records = Columns::of(rejected.iter().map(|(event, _)| (event.place, &event.raw)))?;
    let rows = sqlx::query!(
        r#"INSERT INTO dead_letters (id, account_id, event_id, transaction_id, source_topic,
                  source_partition, source_offset, recorded_at, first_failed_at, attempts,
                  error_class, error_stage, error_message, key, value, headers, value_sha256)
           SELECT id, account_id, event_id, event_id, $1, partition, "offset", recorded_at, now(), 1,
                  'rejected', 'apply', reason, key, value, headers::json,
                  sha256(coalesce(value, ''))
             FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::integer[], $6::bigint[],
                         $7::timestamptz[], $8::bytea[], $9::bytea[], $10::text[], $11::text[])
                  AS record (id, account_id, event_id, partition, "offset", recorded_at, key, value,
                             headers, reason)
               ON CONFLICT (event_id, account_id) WHERE transaction_id IS NOT NULL
               DO UPDATE SET state = 'DEAD', dead_at = now(),
                  replay_count = dead_letters.replay_count + 1,
                  first_failed_at = excluded.first_failed_at, attempts = excluded.attempts,
                  error_class = excluded.error_class, error_stage = excluded.error_stage,
                  error_message = excluded.error_message
           RETURNING id, account_id, event_id AS "event_id!""#,
        source_topic,
        &ids,
        &account_ids,
        &event_ids,
        &records.partitions,
        &records.offsets,
        &records.recorded_at as &[Option<chrono::DateTime<chrono::Utc>>],
        &records.keys as &[Option<&[u8]>],
        &records.values as &[Option<&[u8]>],
        &records.headers,
        &reasons as &[&str],
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.id, row.account_id, row.event_id))
        .collect())
}

/// The same of parked events, which are still in their queues.
pub(super) async fn insert_parked(
    connection: &mut PgConnection,
    rejected: &[Rejected],
) -> Result<Letters, sqlx::Error> {
    let ids: Vec<Uuid> = rejected.iter().map(|_| Uuid::now_v7()).collect();
    let account_ids: Vec<Uuid> = rejected.iter().map(|event| event.account.0).collect();
    let positions: Vec<i64> = rejected.iter().map(|event| event.position).collect();
    let reasons: Vec<&str> = rejected.iter().map(|event| event.reason.as_str()).collect();
    let rows = sqlx::query!(
        r#"INSERT INTO dead_letters (id, account_id, event_id, transaction_id, source_topic,
                  source_partition, source_offset, recorded_at, first_failed_at, attempts,
                  error_class, error_stage, error_message, key, value, headers, value_sha256)
           SELECT rejected.id, parked.account_id, event_id, event_id, source_topic,
                  source_partition, source_offset, recorded_at, coalesce(first_failed_at, now()),
                  attempts + 1, 'rejected', 'apply', rejected.reason, key, value, headers,
                  sha256(coalesce(value, ''))
             FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[])
                  AS rejected (id, account_id, position, reason)
             JOIN parked_events AS parked
               ON parked.account_id = rejected.account_id
              AND parked.position = rejected.position
               ON CONFLICT (event_id, account_id) WHERE transaction_id IS NOT NULL
               DO UPDATE SET state = 'DEAD', dead_at = now(),
                  replay_count = dead_letters.replay_count + 1,
                  first_failed_at = excluded.first_failed_at, attempts = excluded.attempts,
                  error_class = excluded.error_class, error_stage = excluded.error_stage,
                  error_message = excluded.error_message
           RETURNING id, account_id, event_id AS "event_id!""#,
        &ids,
        &account_ids,
        &positions,
        &reasons as &[&str],
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.id, row.account_id, row.event_id))
        .collect())
}

/// Writes the rows that bring letters to their topic; answers how many.
pub(super) async fn announce(
    connection: &mut PgConnection,
    topic: &str,
    letters: &Letters,
    lanes: &[i16],
) -> Result<i64, sqlx::Error> {
    let written = sqlx::query!(
        "INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic, partition_key,
                                    aggregate_type, event_type, dead_letter_id)
         SELECT id, account_id, event_id, lane, $1, account_id::text, 'dead_letter', 'dead_letter', id
           FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::smallint[])
                AS letter (id, account_id, event_id, lane)",
        topic,
        &letters.ids,
        &letters.account_ids,
        &letters.event_ids,
        lanes,
    )
    .execute(connection)
    .await?;
    Ok(i64::try_from(written.rows_affected()).unwrap_or(i64::MAX))
}

impl FromIterator<(Uuid, Uuid, Uuid)> for Letters {
    fn from_iter<I: IntoIterator<Item = (Uuid, Uuid, Uuid)>>(rows: I) -> Self {
        let mut letters = Self::default();
        for (id, account_id, event_id) in rows {
            letters.ids.push(id);
            letters.account_ids.push(account_id);
            letters.event_ids.push(event_id);
        }
        letters
    }
}
