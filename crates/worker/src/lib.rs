//! Postonce's worker: reads `transaction.created` events and posts their transactions to the ledger.

pub mod backoff;
pub mod config;
pub mod consume;
pub mod event;
pub mod housekeeping;
pub mod ledger;
pub mod metrics;
pub mod probe;
pub mod slice;
pub mod worker;

use std::sync::Arc;

use common::{
    admin::{Component, Readiness},
    outbox::WakeUp,
    telemetry::sample_pool,
};
use config::{Config, SERVICE};
use probe::Probe;
use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use worker::Worker;

/// Works until the stop token: waits for the database and the topic, joins the group, applies.
///
/// # Errors
/// If Kafka's client refuses its configuration.
pub async fn run(
    config: Config,
    readiness: Readiness,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let pool = config.pool();
    let client = Arc::new(consume::broker(&config.kafka)?);
    let topic = config.kafka.transactions_topic.clone();
    let probes = [
        (
            Probe::Database {
                pool: pool.clone(),
                limit: config.database.answer_timeout(),
            },
            readiness.component("database"),
        ),
        (
            Probe::Broker { client, topic },
            readiness.component("broker"),
        ),
    ];
    // Consumption begins when it is known that what is consumed can be applied.
    let [database, broker] = probes
        .each_ref()
        .map(|(probe, part)| probe.wait(part, &stop));
    let (database, broker) = tokio::join!(database, broker);
    if !(database && broker) {
        return Ok(());
    }
    let database = probes[0].1.clone();
    let tasks = start_background(&config, &pool, probes, &stop);
    let wake_up = WakeUp::start(config.session(), stop.clone());
    let worker = Worker::join(&config, pool, wake_up, database, &readiness)?;
    worker.run(&stop).await;
    config.shutdown.wait(&tasks).await;
    Ok(())
}

fn start_background(
    config: &Config,
    pool: &PgPool,
    probes: [(Probe, Component); 2],
    stop: &CancellationToken,
) -> TaskTracker {
    let tasks = TaskTracker::new();
    for (probe, component) in probes {
        tasks.spawn(probe.watch(component, stop.clone()));
    }
    tasks.spawn(sample_pool(pool.clone(), SERVICE, stop.clone()));
    let retention = config.processed_events_retention();
    let limit = config.database.answer_timeout();
    tasks.spawn(housekeeping::run(
        pool.clone(),
        limit,
        retention,
        stop.clone(),
    ));
    tasks
}
