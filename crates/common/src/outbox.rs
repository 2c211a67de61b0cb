//! The outbox row and its insert: the api and the worker write it, the publisher reads it.
//!
//! A row is written in the transaction that makes its event true, so an event leaves if and only if
//! what it tells happened.

mod wake_up;

use sqlx::PgConnection;
use uuid::Uuid;
pub use wake_up::{CHANNEL, WakeUp};

use crate::types::{AccountId, EventId, EventType, Lane, TransactionId};

/// What all our events are about (`aggregate_type`).
pub const AGGREGATE_TYPE: &str = "transaction";

/// An event as it is written to the outbox.
#[derive(Clone, Debug)]
pub struct OutboxEvent {
    /// Becomes `ce_id`.
    pub event_id: EventId,
    /// Decides the lane, and becomes the record's key.
    pub account_id: AccountId,
    /// The transaction the event is about.
    pub transaction_id: TransactionId,
    /// Becomes `ce_type`.
    pub event_type: EventType,
    /// The JSON that becomes the record's value, byte for byte.
    pub payload: String,
}

/// Appends events, in this order, for one topic. The events of one account leave in this order.
///
/// Answers how many rows were written, for the caller to compare.
///
/// # Errors
/// The database's.
pub async fn insert(
    connection: &mut PgConnection,
    topic: &str,
    events: &[OutboxEvent],
) -> Result<u64, sqlx::Error> {
    let event_ids: Vec<Uuid> = events.iter().map(|event| event.event_id.0).collect();
    let account_ids: Vec<Uuid> = events.iter().map(|event| event.account_id.0).collect();
    let aggregate_ids: Vec<Uuid> = events.iter().map(|event| event.transaction_id.0).collect();
    let lanes: Vec<i16> = events
        .iter()
        .map(|event| Lane::of(event.account_id).number())
        .collect();
    let types: Vec<String> = events
        .iter()
        .map(|e| e.event_type.as_str().to_owned())
        .collect();
    let payloads: Vec<String> = events.iter().map(|event| event.payload.clone()).collect();
    let inserted = sqlx::query!(
        "INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic, partition_key,
                                    aggregate_type, event_type, payload)
         SELECT event_id, account_id, aggregate_id, lane, $1, account_id::text, $2, event_type,
                payload::json
           FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::smallint[], $7::text[], $8::text[])
                WITH ORDINALITY
                AS event (event_id, account_id, aggregate_id, lane, event_type, payload, position)
          ORDER BY position",
        topic,
        AGGREGATE_TYPE,
        &event_ids,
        &account_ids,
        &aggregate_ids,
        &lanes,
        &types,
        &payloads,
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}
