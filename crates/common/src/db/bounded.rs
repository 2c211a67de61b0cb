use std::{io, time::Duration};

use sqlx::{Error, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::timeout;

use super::{DatabaseSettings, takes_no_writes};

/// How much longer than the server's own statement timeout an answer may take. Where the server is
/// there, its timeout comes first.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

impl DatabaseSettings {
    /// How long to wait for the answer to a statement before its connection counts as dead.
    #[must_use]
    pub fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.database_statement_timeout_ms) + ANSWER_MARGIN
    }
}

/// A connection at work. It goes back to its pool only when the work has come to an end and left its session
/// usable: the pool asks a returning connection whether it lives, without a limit, and one whose other end
/// is gone would keep its place in the pool until TCP gives up.
struct Working {
    connection: PoolConnection<Postgres>,
    reusable: bool,
}

impl Drop for Working {
    fn drop(&mut self) {
        if !self.reusable {
            self.connection.close_on_drop();
        }
    }
}

/// What work on a connection may fail with.
pub trait WorkError: From<Error> {
    /// Whether the session is of no more use, although its connection lives.
    fn spoils_session(&self) -> bool;
}

impl WorkError for Error {
    /// A session that was opened while its database was read-only may stay so when others are not any more.
    fn spoils_session(&self) -> bool {
        takes_no_writes(self)
    }
}

/// Runs work on a connection of the pool, for at most so long. A connection that says nothing for
/// longer, or whose work is dropped or has spoilt its session, is closed.
///
/// # Errors
/// The work's own, the pool's, or [`io::ErrorKind::TimedOut`] when the limit has passed: what the
/// work did is unknown then.
pub async fn bounded<T, E, F>(pool: &PgPool, limit: Duration, work: F) -> Result<T, E>
where
    F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    E: WorkError,
{
    let connection = pool.acquire().await?;
    let mut working = Working {
        connection,
        reusable: false,
    };
    let silent = || E::from(Error::Io(io::ErrorKind::TimedOut.into()));
    let ended = timeout(limit, work(&mut working.connection))
        .await
        .map_err(|_| silent())?;
    working.reusable = !ended.as_ref().is_err_and(WorkError::spoils_session);
    ended
}
