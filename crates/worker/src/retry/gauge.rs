//! How many events are parked, sampled now and then, and counted up to a limit: a scrape costs nothing,
//! and a long queue costs no more than a short one.

mod sql;

use std::time::Duration;

use common::db::bounded;
use metrics::gauge;
use sqlx::{Connection, PgPool};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How often it is counted.
const INTERVAL: Duration = Duration::from_secs(5);
/// The highest count: beyond that it is a great many.
pub const COUNT_MAX: i64 = 100_000;

/// Samples `worker_parked_events` until the stop token.
pub async fn run(pool: PgPool, limit: Duration, stop: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(count(&pool, limit)).await {
            Some(Ok(events)) => gauge!("worker_parked_events").set(as_f64(events)),
            // The probe says what is wrong with the database.
            Some(Err(error)) => debug!(%error, "parked events could not be counted"),
            None => return,
        }
    }
}

/// How many events are parked in all accounts, at most [`COUNT_MAX`].
///
/// # Errors
/// The database's.
pub async fn count(pool: &PgPool, limit: Duration) -> Result<i64, sqlx::Error> {
    bounded(pool, limit, async |connection| {
        // Under SERIALIZABLE the count would lock the table against every writer.
        let mut transaction = connection
            .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
            .await?;
        let events = sql::count(&mut transaction, COUNT_MAX).await?;
        transaction.commit().await?;
        Ok(events)
    })
    .await
}

fn as_f64(count: i64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
