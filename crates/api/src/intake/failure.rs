//! What a batch's failed attempts mean: rules without I/O.

use std::time::Duration;

use common::db::{ErrorClass, is_serialization_failure};
use rand::RngExt;
use sqlx::Error;
use tracing::{error, warn};

use super::IntakeError;

/// The longest pause before the second attempt; it doubles from attempt to attempt.
const BACKOFF_BASE: Duration = Duration::from_millis(4);
/// The longest pause there is.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Why a batch was not written, after all its attempts.
pub(super) enum Failure {
    /// Its rows collide with others or break a rule: smaller batches may do better.
    Divide(Error),
    /// The database is away, or refuses everything.
    GiveUp(IntakeError),
}

impl Failure {
    /// What a batch's last failed attempt means.
    pub(super) fn of(error: Error, rows: usize, may_be_written: bool) -> Self {
        match ErrorClass::of(&error) {
            ErrorClass::Data => Self::Divide(error),
            ErrorClass::Transient if is_serialization_failure(&error) && rows > 1 => {
                Self::Divide(error)
            }
            ErrorClass::Systemic => {
                error!(
                    error = &error as &dyn std::error::Error,
                    rows, "the database refused a batch"
                );
                Self::GiveUp(unless_written(IntakeError::Failed, may_be_written))
            }
            ErrorClass::Transient => {
                warn!(%error, rows, may_be_written, "a batch was given up");
                Self::GiveUp(unless_written(IntakeError::NotWritten, may_be_written))
            }
        }
    }
}

/// What the rows of a batch that failed are answered: whatever the last attempt was told, an earlier one
/// whose answer was lost may yet be committed.
pub(super) fn unless_written(failure: IntakeError, may_be_written: bool) -> IntakeError {
    if may_be_written {
        IntakeError::OutcomeUnknown
    } else {
        failure
    }
}

/// Whether the commit may have happened all the same. The server's own error means that it rolled
/// back, unless it was shutting down (class 57): then the commit may have come first. A broken
/// connection says nothing.
pub(super) fn leaves_outcome_unknown(error: &Error) -> bool {
    match error {
        Error::Database(database) => database
            .code()
            .is_none_or(|code| code.starts_with("57") || code.starts_with("08")),
        _ => true,
    }
}

/// Full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015): two batches that collided
/// do not collide again in step.
pub(super) fn backoff(attempt: u32) -> Duration {
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

    #[test]
    fn a_batch_that_may_be_written_is_never_said_not_to_be() {
        let table = [
            (Error::PoolTimedOut, IntakeError::NotWritten),
            (Error::RowNotFound, IntakeError::Failed),
        ];
        for (error, certain) in table {
            let text = error.to_string();
            let Failure::GiveUp(answer) = Failure::of(error, 1, false) else {
                panic!("{text}")
            };
            assert_eq!(answer, certain, "{text}");
        }
        for failure in [IntakeError::NotWritten, IntakeError::Failed] {
            assert_eq!(unless_written(failure, true), IntakeError::OutcomeUnknown);
        }
    }
}
