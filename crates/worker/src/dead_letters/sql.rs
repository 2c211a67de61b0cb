//! The statements that write dead letters. Their caller begins and commits.

use std::collections::{HashMap, HashSet};

use common::types::{DeadLetterState, Lane};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Announced, Letter};
use crate::{
    event::{Columns, Place},
    slice::ApplyError,
};

/// `aggregate_type` and `event_type` of the outbox row that sends a dead letter.
const DEAD_LETTER: &str = "dead_letter";

/// The states of the dead letters that these records say they were, locked, by that and the record's
/// place. One of another value, or of a transaction, is not theirs.
///
/// The ids stand there twice so that the primary key is used by a plan that was made while there were no
/// dead letters, too.
pub(super) async fn states(
    connection: &mut PgConnection,
    letters: &[&Letter<'_>],
) -> Result<HashMap<(Uuid, Place), DeadLetterState>, sqlx::Error> {
    let ids: Vec<Uuid> = letters
        .iter()
        .filter_map(|letter| letter.claimed_id)
        .collect();
    let account_ids: Vec<Uuid> = letters.iter().map(|letter| letter.account_id.0).collect();
    let values: Vec<_> = letters.iter().map(|letter| letter.raw.value()).collect();
    let rows = sqlx::query!(
        r#"SELECT record.place AS "place!", dead_letters.id, state AS "state: DeadLetterState"
             FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) WITH ORDINALITY
                  AS record (id, account_id, value, place)
             JOIN dead_letters
               ON dead_letters.id = record.id
              AND dead_letters.account_id = record.account_id
              AND dead_letters.value_sha256 = sha256(coalesce(record.value, ''))
            WHERE dead_letters.id = ANY($1)
              AND dead_letters.transaction_id IS NULL
            ORDER BY dead_letters.id
              FOR NO KEY UPDATE OF dead_letters"#,
        &ids,
        &account_ids,
        &values as &[Option<&[u8]>],
    )
    .fetch_all(connection)
    .await?;
    let letter = |place: i64| letters.get(usize::try_from(place - 1).ok()?);
    Ok(rows
        .into_iter()
        .filter_map(|row| Some(((row.id, letter(row.place)?.place), row.state)))
        .collect())
}

/// Writes new letters, and answers which of them are: a record that was delivered before has one.
pub(super) async fn insert(
    connection: &mut PgConnection,
    topic: &str,
    letters: &[(Uuid, &Letter<'_>)],
) -> Result<HashSet<Uuid>, ApplyError> {
    if letters.is_empty() {
        return Ok(HashSet::new());
    }
    let records = Columns::of(letters.iter().map(|(_, letter)| (letter.place, letter.raw)))?;
    let ids: Vec<Uuid> = letters.iter().map(|(id, _)| *id).collect();
    let claims = letters.iter().map(|(_, letter)| letter);
    let account_ids: Vec<Uuid> = claims.clone().map(|letter| letter.account_id.0).collect();
    let event_ids: Vec<Option<Uuid>> = claims
        .clone()
        .map(|letter| letter.event_id.map(|id| id.0))
        .collect();
    let classes: Vec<&str> = claims.clone().map(|letter| letter.class.as_str()).collect();
    let stages: Vec<&str> = claims.clone().map(|letter| letter.stage.as_str()).collect();
    let messages: Vec<&str> = claims.map(|letter| letter.message.as_str()).collect();
    let inserted = sqlx::query_scalar!(
        "INSERT INTO dead_letters
                (id, account_id, event_id, source_topic, source_partition, source_offset,
                 recorded_at, first_failed_at, attempts, error_class, error_stage, error_message,
                 key, value, headers, value_sha256)
         SELECT id, account_id, event_id, $1, source_partition, source_offset,
                recorded_at, now(), 1, error_class, error_stage, error_message,
                key, value, headers::json, sha256(coalesce(value, ''))
           FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::integer[], $6::bigint[],
                       $7::timestamptz[], $8::text[], $9::text[], $10::text[], $11::bytea[],
                       $12::bytea[], $13::text[])
                AS letter (id, account_id, event_id, source_partition, source_offset,
                           recorded_at, error_class, error_stage, error_message, key,
                           value, headers)
             ON CONFLICT (source_topic, source_partition, source_offset, value_sha256, account_id)
                WHERE transaction_id IS NULL
             DO NOTHING
         RETURNING id",
        topic,
        &ids,
        &account_ids,
        &event_ids as &[Option<Uuid>],
        &records.partitions,
        &records.offsets,
        &records.recorded_at as &[Option<chrono::DateTime<chrono::Utc>>],
        &classes as &[&str],
        &stages as &[&str],
        &messages as &[&str],
        &records.keys as &[Option<&[u8]>],
        &records.values as &[Option<&[u8]>],
        &records.headers,
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().collect())
}

/// Puts letters that were replayed back, and answers which.
pub(super) async fn die_again(
    connection: &mut PgConnection,
    letters: &[(Uuid, &Letter<'_>)],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    if letters.is_empty() {
        return Ok(HashSet::new());
    }
    let ids: Vec<Uuid> = letters.iter().map(|(id, _)| *id).collect();
    let claims = letters.iter().map(|(_, letter)| letter);
    let account_ids: Vec<Uuid> = claims.clone().map(|letter| letter.account_id.0).collect();
    let classes: Vec<&str> = claims.clone().map(|letter| letter.class.as_str()).collect();
    let stages: Vec<&str> = claims.clone().map(|letter| letter.stage.as_str()).collect();
    let messages: Vec<&str> = claims.map(|letter| letter.message.as_str()).collect();
    let died = sqlx::query_scalar!(
        "UPDATE dead_letters
            SET state = 'DEAD', replay_count = replay_count + 1, attempts = attempts + 1,
                dead_at = now(), error_class = letter.error_class,
                error_stage = letter.error_stage, error_message = letter.error_message
           FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])
                AS letter (id, account_id, error_class, error_stage, error_message)
          WHERE dead_letters.id = ANY($1)
            AND dead_letters.id = letter.id
            AND dead_letters.account_id = letter.account_id
            AND dead_letters.state = 'REPLAYED'
         RETURNING dead_letters.id",
        &ids,
        &account_ids,
        &classes as &[&str],
        &stages as &[&str],
        &messages as &[&str],
    )
    .fetch_all(connection)
    .await?;
    Ok(died.into_iter().collect())
}

/// Sends letters to the dead letter topic, through the outbox; answers how many rows that made. The
/// publisher takes the bytes from the letters.
pub(super) async fn announce(
    connection: &mut PgConnection,
    topic: &str,
    letters: &[Announced],
) -> Result<i64, sqlx::Error> {
    let ids: Vec<Uuid> = letters.iter().map(|letter| letter.id).collect();
    let account_ids: Vec<Uuid> = letters.iter().map(|letter| letter.account_id.0).collect();
    let lanes = letters.iter().map(|letter| Lane::of(letter.account_id));
    let lanes: Vec<i16> = lanes.map(Lane::number).collect();
    let event_ids: Vec<Option<Uuid>> = letters.iter().map(|letter| letter.event_id).collect();
    let announced = sqlx::query!(
        "INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic, partition_key,
                                    aggregate_type, event_type, dead_letter_id)
         SELECT id, account_id, coalesce(event_id, id), lane, $1, account_id::text, $2, $2, id
           FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::smallint[]) WITH ORDINALITY
                AS letter (id, account_id, event_id, lane, position)
          ORDER BY position",
        topic,
        DEAD_LETTER,
        &ids,
        &account_ids,
        &event_ids as &[Option<Uuid>],
        &lanes,
    )
    .execute(connection)
    .await?;
    Ok(i64::try_from(announced.rows_affected()).unwrap_or(i64::MAX))
}
