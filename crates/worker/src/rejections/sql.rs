//! The statements of copies. Their caller begins and commits.

use common::types::{AccountId, FailureReason};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Rejected;
use crate::{
    dead_letters::Announced,
    event::{Columns, Event},
    slice::ApplyError,
};

/// Writes copies of records. The event of a dead letter that was replayed, and is rejected now, comes
/// back to its own letter.
pub(super) async fn insert(
    connection: &mut PgConnection,
    source_topic: &str,
    rejected: &[(&Event, FailureReason)],
) -> Result<Vec<Announced>, ApplyError> {
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
        .map(|row| Announced {
            id: row.id,
            account_id: AccountId(row.account_id),
            event_id: Some(row.event_id),
        })
        .collect())
}

/// The same of parked events, which are still in their queues.
pub(super) async fn insert_parked(
    connection: &mut PgConnection,
    rejected: &[Rejected],
) -> Result<Vec<Announced>, sqlx::Error> {
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
        .map(|row| Announced {
            id: row.id,
            account_id: AccountId(row.account_id),
            event_id: Some(row.event_id),
        })
        .collect())
}
