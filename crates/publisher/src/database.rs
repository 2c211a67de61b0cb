use std::time::Duration;

use common::db::{DatabaseSettings, bounded};
use metrics::counter;
use sqlx::{Error, PgConnection, PgPool};

use crate::SERVICE;

/// The pool, and how long an answer of it may take. Everything that goes through the pool goes
/// through here, so that a server that says nothing any more holds up nothing for ever.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    answer_timeout: Duration,
}

impl Database {
    /// A pool whose connections are given up as the settings say.
    #[must_use]
    pub fn new(pool: PgPool, settings: &DatabaseSettings) -> Self {
        Self {
            pool,
            answer_timeout: settings.answer_timeout(),
        }
    }

    /// The pool itself, to be looked at.
    pub(crate) fn pool(&self) -> PgPool {
        self.pool.clone()
    }

    /// Runs work on a connection, all of it within the time of one answer.
    ///
    /// When the time is over nobody knows what the work did. All of ours may be done again: a row
    /// that was claimed or marked is claimed or marked once more.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    {
        let ended = bounded(&self.pool, self.answer_timeout, work).await;
        if matches!(ended, Err(Error::PoolTimedOut)) {
            counter!("db_pool_acquire_timeouts_total", "pool" => SERVICE).increment(1);
        }
        ended
    }
}
