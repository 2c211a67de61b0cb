//! Copies of business rejections for the dead letter topic, where a setting asks for them.
//!
//! A rejection is an outcome and not an error: its transaction is FAILED, which is final, and its copy is
//! there to be seen. The copy is written in the transaction that rejects.

mod sql;

use common::types::{AccountId, FailureReason};
use sqlx::PgConnection;

use crate::{
    config::KafkaSettings,
    dead_letters::{self, Announced},
    event::Event,
    slice::ApplyError,
};

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
        &letters,
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
    announce(connection, dead_letters_topic, &letters, rejected.len()).await
}

/// Each rejection has its copy, and each copy its row of the outbox.
async fn announce(
    connection: &mut PgConnection,
    topic: &str,
    letters: &[Announced],
    planned: usize,
) -> Result<usize, ApplyError> {
    let written = i64::try_from(letters.len()).unwrap_or(i64::MAX);
    ApplyError::check("dead_letters", planned, written)?;
    dead_letters::announce(connection, topic, letters).await?;
    Ok(planned)
}
