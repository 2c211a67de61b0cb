//! Samples the outbox for its gauges.

mod sql;

use std::time::Duration;

use metrics::gauge;
use tokio::time::interval;
use tracing::debug;

use crate::Database;

/// How often the table is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// Pending rows are counted up to here; the gauge then says: at least so many.
const PENDING_COUNT_MAX: i64 = 100_000;

/// Samples again and again, until it is dropped.
pub(crate) async fn run(database: Database) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    loop {
        ticks.tick().await;
        if let Err(error) = sample(&database).await {
            debug!(%error, "the outbox was not sampled");
        }
    }
}

/// Sets `outbox_pending_events`, `outbox_oldest_pending_age_seconds` and `outbox_table_bytes`.
pub async fn sample(database: &Database) -> Result<(), sqlx::Error> {
    let looked = database.run(async |connection| {
        let pending = sql::count_pending(connection, PENDING_COUNT_MAX).await?;
        let oldest = sql::oldest_pending_age_seconds(connection).await?;
        let bytes = sql::table_bytes(connection).await?;
        Ok((pending, oldest, bytes))
    });
    let (pending, oldest, bytes) = looked.await?;
    gauge!("outbox_pending_events").set(as_f64(pending));
    gauge!("outbox_oldest_pending_age_seconds").set(oldest.max(0.0));
    gauge!("outbox_table_bytes").set(as_f64(bytes));
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float, and no table has 2^53 rows or bytes"
)]
fn as_f64(number: i64) -> f64 {
    number as f64
}
