//! A topic and a group of a test's own, on a real broker.

use std::env;

use chrono::Utc;
use common::{
    admin::Readiness,
    db::Isolation,
    outbox::WakeUp,
    types::{EventEnvelope, EventType},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use sqlx::PgPool;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use worker::{
    config::Config,
    event::{Event, Raw},
    failure::Failures,
    health::Health,
    metrics::Tally,
    worker::{Step, Worker},
};

use super::wait::PATIENCE;

pub(crate) fn brokers() -> String {
    env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS names the broker of the `test` instance")
}

/// A topic of a test's own, a group that reads it, and what the test needs to write to it.
pub(crate) struct Stream {
    pub(crate) topic: String,
    pub(crate) group: String,
    producer: FutureProducer,
    admin: AdminClient<DefaultClientContext>,
}

impl Stream {
    pub(crate) async fn new(partitions: i32) -> Self {
        let stream = Self::without_topic();
        stream.create_topic(partitions).await;
        stream
    }

    pub(crate) fn without_topic() -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers())
            .set("linger.ms", "0");
        let name = Uuid::now_v7();
        Self {
            topic: format!("worker-test-{name}"),
            group: format!("worker-test-{name}"),
            producer: config.create().unwrap(),
            admin: config.create().unwrap(),
        }
    }

    pub(crate) async fn create_topic(&self, partitions: i32) {
        let topic = NewTopic::new(&self.topic, partitions, TopicReplication::Fixed(1));
        let made = self
            .admin
            .create_topics([&topic], &AdminOptions::new())
            .await
            .unwrap();
        made[0].as_ref().unwrap();
    }

    /// The worker's settings for this topic and group and a test's own database.
    pub(crate) fn config(&self, pool: &PgPool) -> Config {
        let mut config = super::config(pool, Isolation::Serializable);
        config.kafka.kafka_brokers = brokers();
        config.kafka.transactions_topic.clone_from(&self.topic);
        config.kafka.consumer_group.clone_from(&self.group);
        config
    }

    /// Publishes an event, as the publisher does; answers its offset.
    pub(crate) async fn publish(&self, partition: i32, event: &Event) -> i64 {
        let value = serde_json::to_string(&event.transaction).unwrap();
        self.publish_value(partition, event, &value).await
    }

    pub(crate) async fn publish_value(&self, partition: i32, event: &Event, value: &str) -> i64 {
        let envelope = EventEnvelope {
            id: event.id(),
            event_type: EventType::TransactionCreated,
            time: Utc::now(),
            account_id: event.transaction.account_id,
        };
        let mut headers = OwnedHeaders::new();
        for (key, value) in &envelope.headers() {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        let key = envelope.account_id.to_string();
        let record = FutureRecord::to(&self.topic).partition(partition).key(&key);
        let record = record.payload(value).headers(headers);
        self.producer.send(record, PATIENCE).await.unwrap().offset
    }

    /// Publishes a record as it is.
    pub(crate) async fn publish_raw(&self, partition: i32, raw: &Raw) -> i64 {
        let mut headers = OwnedHeaders::new();
        let names = raw.headers();
        for (key, value) in &names.0 {
            let value = value.bytes();
            headers = headers.insert(Header { key, value });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).partition(partition);
        record.key = raw.key();
        record.payload = raw.value();
        let sent = self.producer.send(record.headers(headers), PATIENCE).await;
        sent.unwrap().offset
    }

    /// Publishes something that is no event at all.
    pub(crate) async fn publish_garbage(&self, partition: i32) -> i64 {
        let garbage = Raw::new(None, Some(b"\xff garbage"), &[], None);
        self.publish_raw(partition, &garbage).await
    }

    /// Removes a partition's records before an offset, as retention does.
    pub(crate) async fn delete_records(&self, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(&self.topic, partition, Offset::Offset(before))
            .unwrap();
        let options = AdminOptions::new();
        let done = self.admin.delete_records(&offsets, &options).await.unwrap();
        done.elements()[0].error().unwrap();
    }

    /// The group's committed offset in a partition; none if it has committed nothing.
    pub(crate) async fn committed(&self, partition: i32) -> Option<i64> {
        let (topic, consumer) = (self.topic.clone(), self.outsider());
        spawn_blocking(move || {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&topic, partition);
            let found = consumer.committed_offsets(asked, PATIENCE).unwrap();
            match found.elements()[0].offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }
        })
        .await
        .unwrap()
    }

    /// How many members the group has.
    pub(crate) async fn members(&self) -> usize {
        let (group, consumer) = (self.group.clone(), self.outsider());
        spawn_blocking(move || {
            let found = consumer.fetch_group_list(Some(&group), PATIENCE).unwrap();
            found
                .groups()
                .iter()
                .map(|group| group.members().len())
                .sum()
        })
        .await
        .unwrap()
    }

    /// Sets the group's offset while it has no members.
    pub(crate) async fn set_committed(&self, partition: i32, offset: i64) {
        let (topic, consumer) = (self.topic.clone(), self.outsider());
        spawn_blocking(move || {
            let mut offsets = TopicPartitionList::new();
            offsets
                .add_partition_offset(&topic, partition, Offset::Offset(offset))
                .unwrap();
            consumer.commit(&offsets, CommitMode::Sync).unwrap();
        })
        .await
        .unwrap();
    }

    /// A client that may ask for and set the group's offsets without joining it.
    fn outsider(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap()
    }
}

/// A worker whose steps the test takes, with what it tells the world.
pub(crate) struct Stepper {
    pub(crate) worker: Worker,
    pub(crate) readiness: Readiness,
    stop: CancellationToken,
}

impl Stepper {
    pub(crate) fn join(config: &Config) -> Self {
        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        let health = Health::new(readiness.component("database"));
        let failures = failures(config, &readiness);
        let worker = join(config, &health, failures, &readiness, &stop);
        Self {
            worker,
            readiness,
            stop,
        }
    }

    /// Steps until so many records were worked off.
    pub(crate) async fn consume(&mut self, events: usize) -> Tally {
        let consumed = async {
            let mut tally = Tally::default();
            while tally.records() < events {
                match self.worker.step(&self.stop).await {
                    Step::Applied { tally: more, .. } => tally += more,
                    Step::Idle => {}
                    Step::Halted(halt) => panic!("{halt}"),
                }
            }
            tally
        };
        let tally = timeout(PATIENCE, consumed)
            .await
            .expect("the events arrive");
        assert_eq!(tally.records(), events);
        tally
    }

    pub(crate) async fn leave(self) {
        timeout(PATIENCE, self.worker.leave())
            .await
            .expect("the worker leaves its group");
        self.stop.cancel();
    }
}

/// A worker that runs by itself.
pub(crate) struct Running {
    pub(crate) readiness: Readiness,
    pub(crate) health: Health,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(config: &Config) -> Self {
        let readiness = Readiness::default();
        let failures = failures(config, &readiness);
        Self::beside(config, readiness, failures)
    }

    /// A worker that shares what is known of failures with a retry loop of the test.
    pub(crate) fn sharing(config: &Config, failures: Failures) -> Self {
        Self::beside(config, Readiness::default(), failures)
    }

    fn beside(config: &Config, readiness: Readiness, failures: Failures) -> Self {
        let stop = CancellationToken::new();
        let health = Health::new(readiness.component("database"));
        let worker = join(config, &health, failures, &readiness, &stop);
        let token = stop.clone();
        let task = tokio::spawn(async move { worker.run(&token).await });
        Self {
            readiness,
            health,
            stop,
            task,
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task)
            .await
            .expect("the worker ends")
            .unwrap();
    }
}

fn failures(config: &Config, readiness: &Readiness) -> Failures {
    let ledger = readiness.component("ledger");
    Failures::new(ledger, config.failures.systemic_failures_max)
}

/// The test says that the database is well, as its probe would.
fn join(
    config: &Config,
    health: &Health,
    failures: Failures,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Worker {
    health.needed_side().set_ready();
    let database = health.quiet_side();
    let wake_up = WakeUp::start(config.session(), stop.clone());
    let pool = config.pool();
    Worker::join(config, pool, wake_up, database, failures, readiness).unwrap()
}
