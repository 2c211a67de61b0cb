use std::time::Duration;

use common::db::{WorkError, bounded};
use metrics::{counter, describe_counter};
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;

use crate::problem::{Code, Problem};

/// The pool of everything but the intake: READ COMMITTED, and on the primary, so that what was
/// acknowledged is seen by the next read.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    request_timeout: Duration,
}

impl Database {
    /// Takes a pool, and the time a request may spend with it.
    #[must_use]
    pub fn new(pool: PgPool, request_timeout: Duration) -> Self {
        describe_counter!(
            "db_pool_acquire_timeouts_total",
            "Times no connection of the pool became free in time"
        );
        Self {
            pool,
            request_timeout,
        }
    }

    /// Runs a request's work on one connection. The timeout is the last resort: the pool and the
    /// server have shorter ones, unless the network swallows their answers.
    ///
    /// # Errors
    /// The work's own; `unavailable` without a connection; `timeout`.
    pub(crate) async fn run<T, E, F>(&self, work: F) -> Result<T, Problem>
    where
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
        E: Into<Problem>,
    {
        // The outer limit is the one that answers; dropping the work closes its connection.
        let limit = self.request_timeout * 2;
        let working = bounded(&self.pool, limit, async |connection| {
            work(connection)
                .await
                .map_err(|error| Failure::Work(error.into()))
        });
        match timeout(self.request_timeout, working).await {
            Ok(done) => done.map_err(Failure::into_problem),
            Err(elapsed) => Err(Problem::new(Code::Timeout).because(elapsed)),
        }
    }
}

/// Why a request's work was not done.
enum Failure {
    Work(Problem),
    Connection(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Connection(error)
    }
}

impl WorkError for Failure {
    fn spoils_session(&self) -> bool {
        match self {
            Self::Work(problem) => problem
                .database_error()
                .is_some_and(WorkError::spoils_session),
            Self::Connection(error) => error.spoils_session(),
        }
    }
}

impl Failure {
    fn into_problem(self) -> Problem {
        match self {
            Self::Work(problem) => problem,
            Self::Connection(error) => {
                if matches!(error, sqlx::Error::PoolTimedOut) {
                    counter!("db_pool_acquire_timeouts_total", "pool" => "general").increment(1);
                }
                error.into()
            }
        }
    }
}
