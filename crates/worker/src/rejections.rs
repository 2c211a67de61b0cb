//! Copies of business rejections for the dead letter topic, where a setting asks for them.
//!
//! A rejection is an outcome and not an error: its transaction is FAILED, which is final, and its copy is
//! there to be seen. The copy is written in the transaction that rejects.

mod sql;

use common::types::{AccountId, FailureReason, Lane};
use sql::Letters;
use sqlx::PgConnection;

use crate::{config::KafkaSettings, event::Event, slice::ApplyError};

/// A parked event that was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) account: AccountId,
    /// In its account's queue.
    pub(crate) position: i64,
    pub(crate) reason: FailureReason,
}

/// Copies events that a slice rejected; answers how many copies that made, to be counted when they are
/// committed. Their lanes have result events, too, so the publisher hears of them anyway.
///
/// # Errors
/// The database's, or that rows were not as planned.
pub(crate) async fn copy(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    rejected: &[(&Event, FailureReason)],
) -> Result<usize, ApplyError> {
    if rejected.is_empty() {
        return Ok(0);
    }
    let letters = sql::insert(connection, &kafka.transactions_topic, rejected).await?;
    announce(
        connection,
        &kafka.dead_letters_topic,
        letters,
        rejected.len(),
    )
    .await
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
    ApplyError::check("outbox_events", planned, written)?;
    Ok(planned)
}
