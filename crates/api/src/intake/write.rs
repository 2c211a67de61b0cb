//! Writing a batch until each of its rows has an answer.

use std::time::Duration;

use common::{
    db::{ErrorClass, is_serialization_failure},
    outbox::WakeUp,
};
use rand::RngExt;
use sqlx::{Error, PgPool};
use tokio::time::sleep;
use tracing::{debug, error, warn};

use super::{
    IntakeError, Outcome,
    batch::{Left, decide, part_repeats},
    metrics,
    queue::Row,
    sql::{self, Written},
};

/// Attempts at one batch, the first included, before it is halved (a collision) or given up (the
/// database is away).
const ATTEMPTS_MAX: u32 = 8;
/// The longest pause before the second attempt; it doubles from attempt to attempt.
const BACKOFF_BASE: Duration = Duration::from_millis(4);
/// The longest pause there is.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Writes batches over a pool of SERIALIZABLE sessions.
pub(super) struct Writer {
    pool: PgPool,
    topic: String,
    wake_up: WakeUp,
}

/// Why a batch was not written, after all its attempts.
enum Failure {
    /// Its rows collide with others or break a rule: smaller batches may do better.
    Divide(Error),
    /// The database is away, or refuses everything.
    GiveUp(IntakeError),
}

/// One attempt that failed, and whether its statement had been sent.
struct Attempted {
    error: Error,
    sent: bool,
}

impl Writer {
    pub(super) fn new(pool: PgPool, topic: String, wake_up: WakeUp) -> Self {
        Self {
            pool,
            topic,
            wake_up,
        }
    }

    /// Writes the rows and answers each of them. What fails as a batch is halved, so that one bad
    /// row never fails its neighbours; the first half goes first, which keeps the order.
    pub(super) async fn write(&self, rows: Vec<Row>) {
        let mut batches = vec![rows];
        while let Some(rows) = batches.pop() {
            if rows.is_empty() {
                continue;
            }
            let (mut rows, repeats) = part_repeats(rows);
            match self.attempt(&rows).await {
                Ok(written) => batches.push(self.settle(rows, &written, repeats)),
                Err(Failure::Divide(error)) if rows.len() == 1 => {
                    error!(error = &error as &dyn std::error::Error, transaction_id = %rows[0].id,
                        account_id = %rows[0].new.account_id, "the database refused a transaction");
                    batches.push(repeats);
                    fail(rows, IntakeError::Failed);
                }
                Err(Failure::Divide(_)) => {
                    let second = rows.split_off(rows.len() / 2);
                    batches.extend([repeats, second, rows]);
                }
                Err(Failure::GiveUp(answer)) => {
                    fail(rows, answer);
                    fail(repeats, IntakeError::NotWritten);
                }
            }
        }
    }

    /// Answers a committed batch. The repeats whose first row left nothing come back.
    fn settle(&self, rows: Vec<Row>, written: &[Written], repeats: Vec<Row>) -> Vec<Row> {
        let mut left = Left::default();
        let mut created = false;
        for (row, written) in rows.into_iter().zip(written) {
            let outcome = decide(&row, written);
            if let Outcome::Created(transaction) = &outcome {
                created = true;
                metrics::accepted(transaction);
            }
            if !repeats.is_empty() {
                left.record(&row.new, &outcome);
            }
            row.answer(Ok(outcome));
        }
        if created {
            self.wake_up.hint();
        }
        let mut again = Vec::new();
        for row in repeats {
            match left.answer(&row.new) {
                Some(outcome) => row.answer(Ok(outcome)),
                None => again.push(row),
            }
        }
        again
    }

    /// Runs the statement until it is committed or has failed for good.
    async fn attempt(&self, rows: &[Row]) -> Result<Vec<Written>, Failure> {
        let mut may_be_written = false;
        let mut attempt = 1;
        loop {
            let Attempted { error, sent } = match self.attempt_once(rows).await {
                Ok(written) => return Ok(written),
                Err(attempted) => attempted,
            };
            may_be_written |= sent && leaves_outcome_unknown(&error);
            if attempt == ATTEMPTS_MAX || ErrorClass::of(&error) != ErrorClass::Transient {
                return Err(give_up(error, rows.len(), may_be_written));
            }
            metrics::batch_retried(ErrorClass::Transient.as_str());
            debug!(%error, attempt, rows = rows.len(), "a batch is tried again");
            sleep(backoff(attempt)).await;
            attempt += 1;
        }
    }

    async fn attempt_once(&self, rows: &[Row]) -> Result<Vec<Written>, Attempted> {
        let acquired = self.pool.acquire().await;
        let mut connection = acquired.map_err(|error| Attempted { error, sent: false })?;
        let accepted = sql::accept(&mut connection, &self.topic, rows).await;
        let written = accepted.map_err(|error| Attempted { error, sent: true })?;
        metrics::batch_written(rows.len());
        Ok(written)
    }
}

fn fail(rows: Vec<Row>, error: IntakeError) {
    for row in rows {
        row.answer(Err(error));
    }
}

/// What a batch's last failed attempt means.
fn give_up(error: Error, rows: usize, may_be_written: bool) -> Failure {
    let unknown = IntakeError::OutcomeUnknown;
    match ErrorClass::of(&error) {
        ErrorClass::Data => Failure::Divide(error),
        ErrorClass::Transient if is_serialization_failure(&error) && rows > 1 => {
            Failure::Divide(error)
        }
        ErrorClass::Systemic => {
            error!(
                error = &error as &dyn std::error::Error,
                rows, "the database refused a batch"
            );
            Failure::GiveUp(if may_be_written {
                unknown
            } else {
                IntakeError::Failed
            })
        }
        ErrorClass::Transient => {
            warn!(%error, rows, may_be_written, "a batch was given up");
            Failure::GiveUp(if may_be_written {
                unknown
            } else {
                IntakeError::NotWritten
            })
        }
    }
}

/// Whether the commit may have happened all the same. The server's own error means that it rolled
/// back, unless it was shutting down (class 57): then the commit may have come first. A broken
/// connection says nothing.
fn leaves_outcome_unknown(error: &Error) -> bool {
    match error {
        Error::Database(database) => database
            .code()
            .is_none_or(|code| code.starts_with("57") || code.starts_with("08")),
        _ => true,
    }
}

/// Full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015): two batches that collided
/// do not collide again in step.
fn backoff(attempt: u32) -> Duration {
    let longest = BACKOFF_BASE
        .saturating_mul(1 << attempt.min(16))
        .min(BACKOFF_MAX);
    longest.mul_f64(rand::rng().random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_bounded() {
        for attempt in 1..100 {
            assert!(backoff(attempt) <= BACKOFF_MAX);
        }
    }

    #[test]
    fn a_lost_connection_leaves_the_outcome_open() {
        assert!(leaves_outcome_unknown(&Error::Io(
            std::io::ErrorKind::BrokenPipe.into()
        )));
    }
}
