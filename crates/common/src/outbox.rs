//! The outbox row: the api and the worker write it, the publisher reads it.
//!
//! They write it within larger statements of their own, one round trip each; [`insert`] is for rows
//! that come by themselves (`publisher resend`).
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

/// Events as one array a column, the shape in which `unnest` takes them.
#[derive(Clone, Debug, Default)]
pub struct Columns<'a> {
    /// `event_id`
    pub event_ids: Vec<Uuid>,
    /// `account_id`, and as text `partition_key`
    pub account_ids: Vec<Uuid>,
    /// `aggregate_id`
    pub aggregate_ids: Vec<Uuid>,
    /// `lane`
    pub lanes: Vec<i16>,
    /// `event_type`
    pub types: Vec<&'a str>,
    /// `payload`
    pub payloads: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    /// These events', in their order.
    #[must_use]
    pub fn of(events: &'a [OutboxEvent]) -> Self {
        let mut columns = Self::default();
        for event in events {
            columns.event_ids.push(event.event_id.0);
            columns.account_ids.push(event.account_id.0);
            columns.aggregate_ids.push(event.transaction_id.0);
            columns.lanes.push(Lane::of(event.account_id).number());
            columns.types.push(event.event_type.as_str());
            columns.payloads.push(&event.payload);
        }
        columns
    }
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
    let columns = Columns::of(events);
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
        &columns.event_ids,
        &columns.account_ids,
        &columns.aggregate_ids,
        &columns.lanes,
        &columns.types as &[&str],
        &columns.payloads as &[&str],
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}
