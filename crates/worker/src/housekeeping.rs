//! Removes what the worker no longer has to remember.

mod sql;

use std::time::Duration;

use common::db::bounded;
use metrics::counter;
use sqlx::{Connection, PgPool};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it is looked for. A day's events make a batch or two each time.
const INTERVAL: Duration = Duration::from_mins(1);
/// Most rows removed in one transaction: it stays short, and vacuum keeps up.
const BATCH_ROWS_MAX: i64 = 5_000;

/// Prunes closed events past their retention until the stop token.
pub async fn run(pool: PgPool, limit: Duration, retention: Duration, stop: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop
            .run_until_cancelled(prune(&pool, limit, retention, BATCH_ROWS_MAX))
            .await
        {
            Some(Ok(0)) => {}
            Some(Ok(rows)) => info!(rows, "closed events past their retention removed"),
            Some(Err(error)) => {
                crate::metrics::acquire_failed(&error);
                warn!(%error, "closed events could not be pruned; tried again");
            }
            None => return,
        }
    }
}

/// Removes all closed events past their retention, in batches, and answers how many. A batch that
/// takes longer than the limit is given up, and its connection closed.
///
/// A repeat of such an event is still recognised: its transaction is final.
///
/// # Errors
/// The database's; what was removed before stays removed.
pub async fn prune(
    pool: &PgPool,
    limit: Duration,
    retention: Duration,
    batch_rows_max: i64,
) -> Result<u64, sqlx::Error> {
    let seconds = retention.as_secs_f64();
    let mut removed = 0;
    loop {
        // Whatever the pool's level: nothing is decided here that another transaction could spoil.
        let rows = bounded(pool, limit, async |connection| {
            let mut transaction = connection
                .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
                .await?;
            let rows = sql::prune(&mut transaction, seconds, batch_rows_max).await?;
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(rows)
        })
        .await?;
        counter!("processed_events_pruned_total").increment(rows);
        removed += rows;
        if rows < batch_rows_max.unsigned_abs() {
            return Ok(removed);
        }
    }
}
