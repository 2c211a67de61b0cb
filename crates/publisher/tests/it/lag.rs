use std::sync::OnceLock;

use common::{telemetry::Metrics, types::AccountId};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use sqlx::PgPool;

use crate::{
    log::record_count,
    support::{World, brokers, eventually, payloads},
};

/// The process's metrics; only tests of this binary that ask for them see them.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| common::telemetry::install_metrics().unwrap())
}

/// The sum of a metric over the lines that contain a text.
pub(crate) fn sum(metrics: &Metrics, metric: &str, text: &str) -> Option<f64> {
    let rendered = metrics.render();
    let lines = rendered
        .lines()
        .filter(|line| line.starts_with(metric) && line.contains(text));
    let values: Vec<f64> = lines
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_lag_is_seen_when_no_worker_runs(pool: PgPool) {
    let metrics = metrics();
    let world = World::new(pool);
    let publisher = world.publisher(&[]);
    let account = AccountId::new();
    world.append(account, &payloads(10)).await;
    world.all_published().await;
    let lag = || sum(metrics, "consumer_lag", &world.transactions);
    // Of ten events; a repeat is one to read as well.
    let records = i32::try_from(record_count(&world.transactions)).unwrap();
    let unread = |of: i32| lag() == Some(f64::from(of));
    eventually("all is unread", || async { unread(records) }).await;

    // A worker that has read seven records, committed them and died.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", &world.group)
        .create()
        .unwrap();
    let mut read = TopicPartitionList::new();
    let partition = common::types::Lane::of(account).partition(crate::support::PARTITIONS);
    read.add_partition_offset(&world.transactions, partition, Offset::Offset(7))
        .unwrap();
    consumer.commit(&read, CommitMode::Sync).unwrap();
    drop(consumer);
    eventually("all but seven are unread", || async { unread(records - 7) }).await;
    every_metric_is_explained(&metrics.render());
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_outbox_is_sampled(pool: PgPool) {
    let metrics = metrics();
    let world = World::new(pool);
    world.append(AccountId::new(), &payloads(10)).await;
    let age = "UPDATE outbox_events SET created_at = now() - interval '1 h' WHERE lane >= 0";
    sqlx::query(age).execute(&world.pool).await.unwrap();
    // Publishers of other tests in this process set the same gauges: look until ours shows.
    eventually("the gauges show this outbox", || async {
        publisher::sample_outbox(&world.database()).await.unwrap();
        let oldest = sum(metrics, "outbox_oldest_pending_age_seconds", "").unwrap();
        let pending = sum(metrics, "outbox_pending_events", "");
        let bytes = sum(metrics, "outbox_table_bytes", "").unwrap();
        (3_600.0..3_700.0).contains(&oldest) && pending == Some(10.0) && bytes > 8_192.0
    })
    .await;
}

fn every_metric_is_explained(rendered: &str) {
    let types = rendered
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"outbox_published_total"), "{names:?}");
    assert!(
        names.contains(&"db_pool_acquire_timeouts_total"),
        "{names:?}"
    );
    for name in names {
        assert!(rendered.contains(&format!("# HELP {name} ")), "{name}");
    }
}
