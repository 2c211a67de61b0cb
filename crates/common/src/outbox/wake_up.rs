use std::{sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// The channel of `LISTEN`/`NOTIFY` on which the publisher hears that rows were written.
pub const CHANNEL: &str = "postonce_outbox";

/// The shortest time between two hints: a crowd of commits needs no more.
const HINT_INTERVAL: Duration = Duration::from_millis(2);
/// How long the side connection may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before connecting again after a failure; the publisher polls meanwhile.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Tells the publisher, after a commit, that there is something to send.
///
/// `NOTIFY` takes a lock of the whole database when its transaction commits, so it never runs in
/// the transaction that writes: one side connection sends one hint for all commits since the last.
/// A lost hint costs time, never an event.
#[derive(Clone, Debug)]
pub struct WakeUp(Arc<Notify>);

impl WakeUp {
    /// Starts the side connection's task, which ends with the token.
    #[must_use]
    pub fn start(session: PgConnectOptions, token: CancellationToken) -> Self {
        let pending = Arc::new(Notify::new());
        let hints = Self(Arc::clone(&pending));
        tokio::spawn(async move {
            token.run_until_cancelled(forward(session, &pending)).await;
        });
        hints
    }

    /// Asks for a hint, without waiting.
    pub fn hint(&self) {
        self.0.notify_one();
    }
}

async fn forward(session: PgConnectOptions, pending: &Notify) {
    // A notification's commit need not reach the disk.
    let session = session.options([("synchronous_commit", "off")]);
    loop {
        if let Err(error) = forward_over_one_connection(&session, pending).await {
            debug!(%error, "the wake-up hint's connection failed");
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

async fn forward_over_one_connection(
    session: &PgConnectOptions,
    pending: &Notify,
) -> Result<(), sqlx::Error> {
    let mut connection = in_time(PgConnection::connect_with(session)).await?;
    loop {
        pending.notified().await;
        let hint = sqlx::query!("SELECT pg_notify($1, '')", CHANNEL);
        in_time(hint.execute(&mut connection)).await?;
        sleep(HINT_INTERVAL).await;
    }
}

/// A connection whose other end is gone would never answer.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let silent = || sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    timeout(ANSWER_TIMEOUT, answer)
        .await
        .unwrap_or_else(|_| Err(silent()))
}
