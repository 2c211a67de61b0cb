//! Hears the hint that rows were written, and to which lanes. A lost hint costs time, never an event:
//! the publisher polls anyway.

use std::{sync::Arc, time::Duration};

use common::{outbox::CHANNEL, types::LaneSet};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::{backoff::Backoff, hinted::Hinted};

/// How long a connection may be silent before it is asked whether it lives.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long an answer may take; past it the connection counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Pauses between attempts to listen.
const RECONNECT_PAUSE_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Passes hints on, until it is dropped.
pub(crate) async fn listen(session: PgConnectOptions, hinted: Arc<Hinted>) {
    let mut backoff = Backoff::new(RECONNECT_PAUSE_FIRST, RECONNECT_PAUSE_MAX);
    loop {
        if let Err(error) = listen_over_one_connection(&session, &hinted, &mut backoff).await {
            debug!(%error, "the hint's connection failed");
        }
        sleep(backoff.pause()).await;
    }
}

async fn listen_over_one_connection(
    session: &PgConnectOptions,
    hinted: &Hinted,
    backoff: &mut Backoff,
) -> Result<(), sqlx::Error> {
    // The listener asks for a pool; one of its own keeps it from taking a session of the claims'.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(session.clone());
    let mut listener = in_time(PgListener::connect_with(&pool)).await?;
    in_time(listener.listen(CHANNEL)).await?;
    backoff.reset();
    // What was written before the connection listened gave its hint to nobody.
    hinted.hint(LaneSet::ALL);
    loop {
        match timeout(SILENCE_MAX, listener.try_recv()).await {
            Ok(Ok(Some(hint))) => hinted.hear(lanes_of(hint.payload())),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            // Nobody wrote, or the other end is gone without a word.
            Err(_) => {
                in_time(listener.execute("/* ping */")).await?;
            }
        }
    }
}

/// The lanes a hint names. One that names none, or cannot be read, may mean any.
fn lanes_of(payload: &str) -> LaneSet {
    payload.parse().unwrap_or(LaneSet::ALL)
}

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
    use common::types::Lane;

    use super::*;

    #[test]
    fn a_hint_names_its_lanes() {
        let lanes = [3, 40].map(|number| Lane::from_number(number).unwrap());
        let lanes: LaneSet = lanes.into_iter().collect();
        assert_eq!(lanes_of(&lanes.to_string()), lanes);
    }

    #[test]
    fn a_hint_that_cannot_be_read_means_all_lanes() {
        for payload in ["", "5", "rows were written", "00000000000000201"] {
            assert_eq!(lanes_of(payload), LaneSet::ALL, "{payload}");
        }
    }
}
