//! Hears the hint that rows were written. A lost hint costs time, never an event: the publisher
//! polls anyway.

use std::{sync::Arc, time::Duration};

use common::outbox::CHANNEL;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::{sync::Notify, time::sleep};
use tracing::debug;

use crate::backoff::Backoff;

/// Pauses between attempts to listen.
const RECONNECT_PAUSE_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Passes hints on, until it is dropped.
pub(crate) async fn listen(session: PgConnectOptions, wake: Arc<Notify>) {
    let mut backoff = Backoff::new(RECONNECT_PAUSE_FIRST, RECONNECT_PAUSE_MAX);
    loop {
        if let Err(error) = listen_over_one_connection(&session, &wake, &mut backoff).await {
            debug!(%error, "the hint's connection failed");
        }
        sleep(backoff.pause()).await;
    }
}

async fn listen_over_one_connection(
    session: &PgConnectOptions,
    wake: &Notify,
    backoff: &mut Backoff,
) -> Result<(), sqlx::Error> {
    // The listener asks for a pool; one of its own keeps it from taking a session of the claims'.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(session.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    backoff.reset();
    // What was written before the connection listened gave its hint to nobody.
    wake.notify_one();
    while listener.try_recv().await?.is_some() {
        wake.notify_one();
    }
    Ok(())
}
