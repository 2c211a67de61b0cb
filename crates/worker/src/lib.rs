//! Postonce's worker: reads `transaction.created` events and posts their transactions to the ledger.

pub mod backoff;
pub mod config;
pub mod consume;
pub(crate) mod dead_letters;
pub mod event;
pub mod failure;
pub mod health;
pub mod housekeeping;
pub mod ledger;
pub mod metrics;
pub mod parked;
pub mod posting;
pub mod probe;
pub mod rejections;
pub mod retry;
pub mod slice;
pub mod worker;

use std::sync::Arc;

use common::{
    admin::Readiness,
    outbox::WakeUp,
    shutdown::{all_end, beside},
    telemetry::sample_pool,
};
use config::{Config, SERVICE};
use failure::Failures;
use health::{Health, Side};
use probe::Probe;
use retry::{Retries, gauge};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use worker::Worker;

/// The name of the retries' pool in metrics.
const RETRIES_POOL: &str = "worker-retries";

/// Works until the stop token: waits for the database and the topic, joins the group, applies.
///
/// # Errors
/// If Kafka's client refuses its configuration, or one of the tasks beside the slices ended too early.
pub async fn run(
    config: Config,
    readiness: Readiness,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let stop = stop.child_token();
    let pool = config.pool();
    let client = Arc::new(consume::broker(&config.kafka)?);
    let topic = config.kafka.transactions_topic.clone();
    let database = Health::new(readiness.component("database"));
    let broker = Health::new(readiness.component("broker"));
    let probes = [
        (
            Probe::Database {
                pool: pool.clone(),
                limit: config.database.answer_timeout(),
            },
            database.needed_side(),
        ),
        (Probe::Broker { client, topic }, broker.needed_side()),
    ];
    // Consumption begins when it is known that what is consumed can be applied.
    let [has_database, has_broker] = probes
        .each_ref()
        .map(|(probe, side)| probe.wait(side, &stop));
    let (has_database, has_broker) = tokio::join!(has_database, has_broker);
    if !(has_database && has_broker) {
        return Ok(());
    }
    let mut tasks = start_background(&config, &pool, probes, &stop);
    let wake_up = WakeUp::start(config.session(), stop.clone());
    let ledger = readiness.component("ledger");
    let failures = Failures::new(ledger, config.failures.systemic_failures_max);
    let side = database.quiet_side();
    let retries = Retries::new(&config, wake_up.clone(), side, failures.of_another_loop());
    tasks.spawn(sample_pool(retries.pool(), RETRIES_POOL, stop.clone()));
    tasks.spawn(retries.run(stop.clone()));
    let side = database.quiet_side();
    let worker = Worker::join(&config, pool, wake_up, side, failures, &readiness)?;
    let shutdown = config.shutdown;
    let work = Box::pin(worker.run(&stop));
    let ended = beside(&mut tasks, &stop, shutdown, work).await;
    shutdown.drain(&stop, all_end(&mut tasks)).await;
    Ok(ended?)
}

fn start_background(
    config: &Config,
    pool: &PgPool,
    probes: [(Probe, Side); 2],
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (probe, side) in probes {
        tasks.spawn(probe.watch(side, stop.clone()));
    }
    tasks.spawn(sample_pool(pool.clone(), SERVICE, stop.clone()));
    let limit = config.database.answer_timeout();
    tasks.spawn(gauge::run(pool.clone(), limit, stop.clone()));
    if let Some(retention) = config.processed_events_retention() {
        let pool = pool.clone();
        tasks.spawn(housekeeping::run(pool, limit, retention, stop.clone()));
    }
    tasks
}
