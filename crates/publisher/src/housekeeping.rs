//! Removes published rows that were kept long enough.

mod sql;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::{Database, lanes::Ownership};

/// Most rows looked at in one statement.
const BATCH_ROWS_MAX: i64 = 1_000;
/// The pause between two batches of a round: publishing comes first.
const BATCH_PAUSE: Duration = Duration::from_millis(20);
/// The pause between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(30);

/// How far a round has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Rows up to this seq were looked at; there are more.
    Walked { seq: i64 },
    /// There are no rows behind that could be old enough.
    RoundDone,
}

/// Removes old rows again and again, on the one instance that owns the first lane. Without
/// retention too: rows may have been published before it was switched off.
pub(crate) async fn run(database: Database, ownership: Arc<Ownership>, retention: Duration) {
    loop {
        if ownership.is_first() {
            match remove_old(&database, retention).await {
                Ok(0) => {}
                Ok(removed) => debug!(removed, "old outbox rows removed"),
                Err(error) => warn!(%error, "old outbox rows could not be removed"),
            }
        }
        sleep(ROUND_INTERVAL).await;
    }
}

/// One round: removes all rows that were published longer ago than `retention`, in bounded batches
/// from the lowest seq on. Pending rows stay, however old they are.
pub async fn remove_old(database: &Database, retention: Duration) -> Result<u64, sqlx::Error> {
    let mut after_seq = 0;
    let mut removed = 0;
    loop {
        let (step, batch) = remove_batch(database, after_seq, retention).await?;
        removed += batch;
        match step {
            Step::Walked { seq } => after_seq = seq,
            Step::RoundDone => return Ok(removed),
        }
        sleep(BATCH_PAUSE).await;
    }
}

async fn remove_batch(
    database: &Database,
    after_seq: i64,
    retention: Duration,
) -> Result<(Step, u64), sqlx::Error> {
    let work = database.run(async |connection| {
        let before = sql::time_ago(connection, retention.as_secs_f64()).await?;
        let batch = sql::remove_batch(connection, after_seq, BATCH_ROWS_MAX, before).await?;
        Ok((before, batch))
    });
    let (published_before, batch) = work.await?;
    let removed = u64::try_from(batch.removed).unwrap_or(0);
    Ok((next(&batch, published_before), removed))
}

/// A row is published after it was created, so the round ends at the first row created too late,
/// give or take transactions that overlapped: those wait for the next round.
fn next(batch: &sql::Batch, published_before: DateTime<Utc>) -> Step {
    match (batch.last_seq, batch.last_created_at) {
        (Some(seq), Some(created_at))
            if batch.walked == BATCH_ROWS_MAX && created_at < published_before =>
        {
            Step::Walked { seq }
        }
        _ => Step::RoundDone,
    }
}
