//! What the worker needs, asked every now and then, so that readiness tells the truth while nothing
//! is consumed.

mod sql;

use std::{sync::Arc, time::Duration};

use common::db::bounded;
use rdkafka::consumer::BaseConsumer;
use sqlx::PgPool;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{consume::topic_exists, health::Side, metrics};

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the broker may take to answer.
const BROKER_WAIT: Duration = Duration::from_secs(2);

/// Asks one of the things that the worker needs.
#[derive(Clone)]
pub enum Probe {
    /// The database, with its schema.
    Database {
        /// Where it is asked.
        pool: PgPool,
        /// How long an answer may take.
        limit: Duration,
    },
    /// The broker, with the topic.
    Broker {
        /// Asks.
        client: Arc<BaseConsumer>,
        /// The topic to consume.
        topic: String,
    },
}

impl Probe {
    /// Asks once; the error is the reason to show.
    async fn ask(&self) -> Result<(), String> {
        match self {
            Self::Database { pool, limit } => {
                let asked = bounded(pool, *limit, async |connection| {
                    sql::schema(connection).await
                });
                asked.await.map_err(|error: sqlx::Error| {
                    metrics::acquire_failed(&error);
                    error.to_string()
                })
            }
            Self::Broker { client, topic } => {
                let (client, asked) = (Arc::clone(client), topic.clone());
                let found = spawn_blocking(move || topic_exists(&client, &asked, BROKER_WAIT));
                match found.await {
                    Ok(Ok(true)) => Ok(()),
                    Ok(Ok(false)) => Err(format!("there is no topic {topic} yet")),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    }

    /// Asks until the answer is yes; answers whether it came before the stop token.
    pub async fn wait(&self, side: &Side, stop: &CancellationToken) -> bool {
        let asking = async {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                if self.tell(side).await {
                    return;
                }
            }
        };
        stop.run_until_cancelled(asking).await.is_some()
    }

    /// Keeps asking until the stop token; an answer that is still out then is not waited for.
    pub async fn watch(self, side: Side, stop: CancellationToken) {
        let mut ticks = ticks();
        let watching = async {
            loop {
                ticks.tick().await;
                self.tell(&side).await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    async fn tell(&self, side: &Side) -> bool {
        match self.ask().await {
            Ok(()) => {
                side.set_ready();
                true
            }
            Err(reason) => {
                side.set_unready(reason);
                false
            }
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
