//! Copies of business rejections for the dead letter topic, where a setting asks for them.
//!
//! A rejection is an outcome and not an error: its transaction is FAILED, which is final, and its copy is
//! there to be seen. The copy is written in the transaction that rejects.

mod sql;

use chrono::{DateTime, Utc};
use common::types::{AccountId, EventId, FailureReason, Lane};
use sql::Letters;
use sqlx::PgConnection;

use crate::slice::ApplyError;

/// A parked event that was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) account: AccountId,
    /// In its account's queue.
    pub(crate) position: i64,
    pub(crate) reason: FailureReason,
}

/// A record of the topic whose event was rejected.
#[derive(Clone, Debug)]
pub struct RejectedRecord<'a> {
    /// Its event's account.
    pub account: AccountId,
    /// Its event, which is that of its transaction.
    pub event: EventId,
    /// Why.
    pub reason: FailureReason,
    /// Where it stands.
    pub partition: i32,
    /// Where it stands in its partition.
    pub offset: i64,
    /// Its own time.
    pub recorded_at: Option<DateTime<Utc>>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, as `RecordHeaders` in JSON.
    pub headers: String,
}

/// Copies rejected records of a topic to the dead letters; answers how many copies were written, to be
/// counted when they are committed, and hinted.
///
/// # Errors
/// The database's, or that rows were not as planned.
pub async fn copy(
    connection: &mut PgConnection,
    source_topic: &str,
    dead_letters_topic: &str,
    records: &[RejectedRecord<'_>],
) -> Result<usize, ApplyError> {
    if records.is_empty() {
        return Ok(0);
    }
    let letters = sql::insert(connection, source_topic, records).await?;
    announce(connection, dead_letters_topic, letters, records.len()).await
}

/// The same of parked events, before they leave their queues.
pub(crate) async fn copy_parked(
    connection: &mut PgConnection,
    dead_letters_topic: &str,
    rejected: &[Rejected],
) -> Result<usize, ApplyError> {
    if rejected.is_empty() {
        return Ok(0);
    }
    let letters = sql::insert_parked(connection, rejected).await?;
    announce(connection, dead_letters_topic, letters, rejected.len()).await
}

async fn announce(
    connection: &mut PgConnection,
    topic: &str,
    letters: Letters,
    planned: usize,
) -> Result<usize, ApplyError> {
    let lanes: Vec<i16> = letters
        .account_ids
        .iter()
        .map(|id| Lane::of(AccountId(*id)).number())
        .collect();
    let written = sql::announce(connection, topic, &letters, &lanes).await?;
    let written = usize::try_from(written).unwrap_or(usize::MAX);
    if written != planned {
        return Err(ApplyError::Copied { planned, written });
    }
    Ok(written)
}
