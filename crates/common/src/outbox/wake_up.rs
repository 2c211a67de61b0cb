use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::types::LaneSet;

/// The channel of `LISTEN`/`NOTIFY` on which the publisher hears that rows were written. What
/// is said on it is the set of the lanes they were written to ([`LaneSet`]'s text).
pub const CHANNEL: &str = "postonce_outbox";

/// The shortest time between two hints: a crowd of commits needs no more.
const HINT_INTERVAL: Duration = Duration::from_millis(2);
/// How long the side connection may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before connecting again after a failure; the publisher polls meanwhile.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Tells the publisher, after a commit, which lanes have something to send.
///
/// `NOTIFY` takes a lock of the whole database when its transaction commits, so it never runs in
/// the transaction that writes: one side connection sends one hint for all commits since the last.
/// A lost hint costs time, never an event.
#[derive(Clone, Debug)]
pub struct WakeUp(Arc<Pending>);

/// The lanes of which the publisher is still to be told.
#[derive(Debug, Default)]
struct Pending {
    lanes: AtomicU64,
    added: Notify,
}

impl Pending {
    fn add(&self, lanes: LaneSet) {
        self.lanes.fetch_or(lanes.bits(), Ordering::AcqRel);
        self.added.notify_one();
    }

    /// Waits until there are some, and takes them all.
    async fn take(&self) -> LaneSet {
        loop {
            self.added.notified().await;
            let lanes = LaneSet::from_bits(self.lanes.swap(0, Ordering::AcqRel));
            // The last take may have had them already, of a word that came just before it.
            if !lanes.is_empty() {
                return lanes;
            }
        }
    }
}

impl WakeUp {
    /// Starts the side connection's task, which ends with the token.
    #[must_use]
    pub fn start(session: PgConnectOptions, token: CancellationToken) -> Self {
        let pending = Arc::new(Pending::default());
        let hints = Self(Arc::clone(&pending));
        tokio::spawn(async move {
            token.run_until_cancelled(forward(session, &pending)).await;
        });
        hints
    }

    /// Asks for a hint that rows were written to these lanes, without waiting.
    pub fn hint(&self, lanes: LaneSet) {
        self.0.add(lanes);
    }
}

async fn forward(session: PgConnectOptions, pending: &Pending) {
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
    pending: &Pending,
) -> Result<(), sqlx::Error> {
    let mut connection = in_time(PgConnection::connect_with(session)).await?;
    loop {
        let lanes = pending.take().await;
        if let Err(error) = send(&mut connection, lanes).await {
            // For the next connection.
            pending.add(lanes);
            return Err(error);
        }
        sleep(HINT_INTERVAL).await;
    }
}

async fn send(connection: &mut PgConnection, lanes: LaneSet) -> Result<(), sqlx::Error> {
    let hint = sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, lanes.to_string());
    in_time(hint.execute(connection)).await?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Lane;

    fn lanes(numbers: impl IntoIterator<Item = i16>) -> LaneSet {
        let lanes = numbers.into_iter();
        lanes.map(|n| Lane::from_number(n).unwrap()).collect()
    }

    #[tokio::test]
    async fn one_hint_names_the_lanes_of_all_commits_since_the_last() {
        let pending = Pending::default();
        pending.add(lanes([3]));
        pending.add(lanes([40]));
        assert_eq!(pending.take().await, lanes([3, 40]));
        pending.add(lanes([5]));
        assert_eq!(pending.take().await, lanes([5]));
    }

    #[tokio::test]
    async fn no_hint_names_no_lane() {
        let pending = Pending::default();
        pending.add(LaneSet::EMPTY);
        tokio::select! {
            biased;
            none = pending.take() => panic!("taken: {none}"),
            () = tokio::task::yield_now() => {}
        }
    }
}
