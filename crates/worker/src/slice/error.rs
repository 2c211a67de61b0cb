use common::db::WorkError;
use thiserror::Error;

use crate::posting::{PostError, Rows};

/// Why a slice was not applied. Nothing of it was written (or, if the connection broke in the
/// commit, all of it; then its events are found closed when they are tried again).
///
/// [`classify`](crate::failure::classify) says what to do about it.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The database refused, or could not be reached.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// Rows were not as the locks promise. Whatever caused that, posting must not go on.
    #[error("{written:?} rows written where {planned:?} were planned")]
    RowsAffected {
        /// What was decided.
        planned: Rows,
        /// What the database did.
        written: Rows,
    },
    /// Rows of one table were not as the locks promise, where events were parked or given up.
    #[error("{written} rows of {table} written where {planned} were planned")]
    TableRowsAffected {
        /// The table.
        table: &'static str,
        /// What was decided.
        planned: usize,
        /// What the database did.
        written: i64,
    },
    /// An event, or a record's headers, could not be written as JSON.
    #[error("could not be written as JSON")]
    Payload(#[from] serde_json::Error),
}

impl WorkError for ApplyError {
    fn spoils_session(&self) -> bool {
        matches!(self, Self::Database(error) if error.spoils_session())
    }
}

impl ApplyError {
    /// The SQLSTATE, if the database gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Database(error) => Some(error.as_database_error()?.code()?.into_owned()),
            _ => None,
        }
    }

    /// Compares how many rows of a table were written with what was planned.
    ///
    /// # Errors
    /// If they differ.
    pub(crate) fn check(table: &'static str, planned: usize, written: i64) -> Result<(), Self> {
        if i64::try_from(planned) == Ok(written) {
            return Ok(());
        }
        Err(Self::TableRowsAffected {
            table,
            planned,
            written,
        })
    }
}

impl From<PostError> for ApplyError {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Database(error) => Self::Database(error),
            PostError::Payload(error) => Self::Payload(error),
        }
    }
}
