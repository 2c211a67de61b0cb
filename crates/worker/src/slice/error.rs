use common::db::{ErrorClass, is_serialization_failure};
use thiserror::Error;

use super::plan::Inapplicable;
use crate::{
    posting::{PostError, Rows},
    retry::{Buried, Removed},
};

/// Why a slice was not applied. Nothing of it was written (or, if the connection broke in the
/// commit, all of it; then its events are found closed when they are tried again).
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The database refused, or could not be reached.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// One of the events may not be applied.
    #[error("{reason}")]
    Inapplicable {
        /// Which one of the slice.
        index: usize,
        /// Why.
        reason: Inapplicable,
    },
    /// Rows were not as the locks promise. Whatever caused that, posting must not go on.
    #[error("{written:?} rows written where {planned:?} were planned")]
    RowsAffected {
        /// What was decided.
        planned: Rows,
        /// What the database did.
        written: Rows,
    },
    /// The same of queues of parked events.
    #[error("{written:?} of parked events changed where {planned:?} were planned")]
    Removed {
        /// What was decided.
        planned: Removed,
        /// What the database did.
        written: Removed,
    },
    /// The same of a dead letter.
    #[error("{written:?} written for a dead letter where {planned:?} were planned")]
    Buried {
        /// What was decided.
        planned: Buried,
        /// What the database did.
        written: Buried,
    },
    /// The same of copies of rejections.
    #[error("{written} copies of rejections written where {planned} were planned")]
    Copied {
        /// What was decided.
        planned: usize,
        /// What the database did.
        written: usize,
    },
    /// A result event could not be written as JSON.
    #[error("a result event could not be written as JSON")]
    Payload(#[from] serde_json::Error),
}

impl From<PostError> for ApplyError {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Database(error) => Self::Database(error),
            PostError::Payload(error) => Self::Payload(error),
        }
    }
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Two transactions collided; try again soon.
    Collision,
    /// The database is away or busy; try again until it is back.
    Away,
    /// This event of the slice cannot be applied.
    Refuse(usize),
    /// One of several events cannot be applied: look for it in halves.
    Divide,
    /// No event could be applied: somebody has to mend something.
    Halt,
}

impl ApplyError {
    /// What to do about this error of a slice of so many events.
    #[must_use]
    pub fn verdict(&self, events: usize) -> Verdict {
        match self {
            Self::Inapplicable { index, .. } => Verdict::Refuse(*index),
            Self::RowsAffected { .. }
            | Self::Removed { .. }
            | Self::Buried { .. }
            | Self::Copied { .. }
            | Self::Payload(_) => Verdict::Halt,
            Self::Database(error) if is_serialization_failure(error) => Verdict::Collision,
            Self::Database(error) => match ErrorClass::of(error) {
                ErrorClass::Transient => Verdict::Away,
                ErrorClass::Systemic => Verdict::Halt,
                ErrorClass::Data if events > 1 => Verdict::Divide,
                ErrorClass::Data => Verdict::Refuse(0),
            },
        }
    }

    /// The SQLSTATE, if the database gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Database(error) => Some(error.as_database_error()?.code()?.into_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_one_event_is_refused_and_one_of_many_is_looked_for() {
        let error = ApplyError::Inapplicable {
            index: 3,
            reason: Inapplicable::NoSuchTransaction,
        };
        assert_eq!(error.verdict(10), Verdict::Refuse(3));
        assert_eq!(
            ApplyError::Database(sqlx::Error::PoolTimedOut).verdict(10),
            Verdict::Away
        );
        let silent = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
        assert_eq!(ApplyError::Database(silent).verdict(1), Verdict::Away);
        assert_eq!(
            ApplyError::Database(sqlx::Error::RowNotFound).verdict(1),
            Verdict::Halt
        );
    }
}
