use std::{collections::HashSet, env, time::Duration};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaResult,
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
    metadata::MetadataTopic,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use uuid::Uuid;

use crate::wait::{PATIENCE, eventually};

/// The longest time one question to the broker may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The broker, as an operator or a consumer of the events sees it.
#[derive(Clone, Debug)]
pub struct Kafka {
    brokers: String,
}

/// A record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The partition it lies in.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Its key, as text.
    pub key: String,
    /// Its headers in their order, as text.
    pub headers: Vec<(String, String)>,
    /// Its value, byte for byte.
    pub value: Vec<u8>,
}

impl Record {
    /// A header's text; empty without one.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map_or("", |(_, value)| value)
    }

    /// The value's JSON; null for anything else.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.value).unwrap_or(Value::Null)
    }

    fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"")).into();
        let headers = message.headers().map(|headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), text(header.value)))
                .collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: text(message.key()),
            headers: headers.unwrap_or_default(),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }
}

impl Kafka {
    /// The broker of the test instance, which `KAFKA_BROKERS` names.
    ///
    /// # Panics
    /// If it is not named.
    #[must_use]
    pub fn from_env() -> Self {
        let brokers = env::var("KAFKA_BROKERS")
            .expect("KAFKA_BROKERS is not set: run the tests by `make e2e` or `make test`");
        Self { brokers }
    }

    /// The addresses to start from.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The address that the broker tells its clients to speak to.
    #[must_use]
    pub fn advertised(&self) -> (String, u16) {
        let consumer = self.consumer("e2e-metadata");
        let metadata = consumer.fetch_metadata(None, TIMEOUT).unwrap();
        let [broker] = metadata.brokers() else {
            panic!("the test instance has one broker");
        };
        (
            broker.host().to_owned(),
            u16::try_from(broker.port()).unwrap(),
        )
    }

    /// All records of a topic, each partition's in order.
    #[must_use]
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let consumer = self.consumer("e2e-reader");
        let mut missing: i64 = 0;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions(&consumer, topic) {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition, TIMEOUT)
                .unwrap();
            missing += high - low;
            assignment
                .add_partition_offset(topic, partition, Offset::Offset(low))
                .unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let mut records = Vec::new();
        while missing > 0 {
            let message = consumer.poll(TIMEOUT).expect("the topic dried up").unwrap();
            records.push(Record::of(&message));
            missing -= 1;
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// The events of a topic: events leave at least once, and of each the first record counts.
    #[must_use]
    pub fn events(&self, topic: &str) -> Vec<Record> {
        let mut seen = HashSet::new();
        let mut records = self.read(topic);
        records.retain(|record| seen.insert(record.header("ce_id").to_owned()));
        records
    }

    /// Whether the broker answers, at this moment.
    #[must_use]
    pub fn answers(&self) -> bool {
        let consumer = self.consumer("e2e-metadata");
        let soon = Duration::from_millis(500);
        consumer.fetch_metadata(None, soon).is_ok()
    }

    /// How many partitions a topic has; 0 if it does not exist.
    #[must_use]
    pub fn partitions(&self, topic: &str) -> i32 {
        partitions(&self.consumer("e2e-metadata"), topic)
    }

    /// Appends a record, as anybody may who can write to the topic, and says where it lies.
    #[must_use]
    pub fn append(&self, topic: &str, record: &Record) -> i64 {
        self.try_append(topic, record).unwrap();
        let consumer = self.consumer("e2e-metadata");
        let (_, high) = consumer
            .fetch_watermarks(topic, record.partition, TIMEOUT)
            .unwrap();
        high - 1
    }

    /// Appends a record; it may be there even if this says that it is not.
    ///
    /// # Errors
    /// If the broker does not take it in time.
    pub fn try_append(&self, topic: &str, record: &Record) -> KafkaResult<()> {
        let producer: BaseProducer = self.config().create()?;
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            });
        let message = BaseRecord::to(topic)
            .partition(record.partition)
            .key(&record.key)
            .payload(&record.value)
            .headers(headers);
        producer.send(message).map_err(|(error, _)| error)?;
        producer.flush(TIMEOUT)
    }

    /// Sets the offset from which a group without members goes on in a partition.
    pub fn seek_group(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        self.try_seek_group(group, topic, partition, offset)
            .unwrap();
    }

    /// The same.
    ///
    /// # Errors
    /// If the broker does not answer, or the group has members.
    pub fn try_seek_group(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let consumer = self.consumer(group);
        consumer.commit(&offsets, CommitMode::Sync)
    }

    /// Sends a group without members back to the first record of each partition.
    pub fn rewind_group(&self, group: &str, topic: &str) {
        for partition in 0..self.partitions(topic) {
            self.seek_group(group, topic, partition, 0);
        }
    }

    /// Waits until a group has committed everything there is in a topic.
    pub async fn group_caught_up(&self, group: &str, topic: &str) {
        let consumer = self.consumer(group);
        eventually(&format!("{group} at the end of {topic}"), async || {
            is_caught_up(&consumer, topic).then_some(())
        })
        .await;
    }

    /// Whether a group has committed everything there is in a topic.
    #[must_use]
    pub fn is_caught_up(&self, group: &str, topic: &str) -> bool {
        is_caught_up(&self.consumer(group), topic)
    }

    /// Whether a group has committed anything of a topic that has records.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub fn has_committed(&self, group: &str, topic: &str) -> KafkaResult<bool> {
        let consumer = self.consumer(group);
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let mut asked = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
            asked.add_partition(topic, partition.id());
        }
        let committed = consumer.committed_offsets(asked, TIMEOUT)?;
        let offsets = committed.elements();
        Ok(offsets
            .iter()
            .any(|place| matches!(place.offset(), Offset::Offset(1..))))
    }

    /// Sets one of a topic's own settings.
    ///
    /// # Panics
    /// If the broker does not take it.
    pub async fn set_topic(&self, topic: &str, name: &str, value: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let changed = admin.alter_configs([&change], &options).await.unwrap();
        let refused = changed.into_iter().find_map(Result::err);
        assert!(refused.is_none(), "{topic}: {refused:?}");
    }

    /// Removes topics; one that was never made is no matter.
    pub async fn delete_topics(&self, topics: &[&str]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let _never_made = admin.delete_topics(topics, &options).await;
    }

    /// The topics there are.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        let consumer = self.consumer("e2e-metadata");
        let metadata = consumer.fetch_metadata(None, TIMEOUT).unwrap();
        let topics = metadata.topics().iter();
        topics.map(|topic| topic.name().to_owned()).collect()
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// A consumer that never joins its group: it only reads what it is told, or its offsets.
    fn consumer(&self, group: &str) -> BaseConsumer {
        self.config()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "50")
            .create()
            .unwrap()
    }
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> i32 {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let topic = metadata.topics().first();
    topic.map_or(0, |topic| i32::try_from(topic.partitions().len()).unwrap())
}

fn is_caught_up(consumer: &BaseConsumer, topic: &str) -> bool {
    (0..partitions(consumer, topic)).all(|partition| at_end(consumer, topic, partition))
}

fn at_end(consumer: &BaseConsumer, topic: &str, partition: i32) -> bool {
    let (_, high) = consumer
        .fetch_watermarks(topic, partition, TIMEOUT)
        .unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition);
    let committed = consumer.committed_offsets(asked, TIMEOUT).unwrap();
    let committed = committed.find_partition(topic, partition).unwrap().offset();
    high == 0 || committed == Offset::Offset(high)
}

/// A name for a topic or group that nobody else has; the time in it tells when it may be removed.
#[must_use]
pub(crate) fn fresh_name(what: &str) -> String {
    format!("e2e.{}.{what}", Uuid::now_v7().simple())
}
