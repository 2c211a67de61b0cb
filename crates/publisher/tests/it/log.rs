use std::{collections::HashSet, time::Duration};

use common::types::AccountId;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Headers, OwnedMessage},
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{LOOK_INTERVAL, PARTITIONS, PATIENCE, admin, brokers};

/// Reads a topic from its beginning.
pub(crate) struct Log {
    consumer: BaseConsumer,
    pub(crate) records: Vec<OwnedMessage>,
}

impl Log {
    pub(crate) fn of(topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("group.id", format!("reader-{}", Uuid::new_v4()))
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let from = Offset::Beginning;
            partitions
                .add_partition_offset(topic, partition, from)
                .unwrap();
        }
        consumer.assign(&partitions).unwrap();
        Self {
            consumer,
            records: Vec::new(),
        }
    }

    /// Reads until all these events were seen.
    pub(crate) async fn read_all(&mut self, events: &[Uuid]) {
        self.read_until_seen(events, |record| header(record, "ce_id"))
            .await;
    }

    /// Reads until all these events, dead letters and replays of them were seen; the latter go by the ids of
    /// their letters.
    pub(crate) async fn read_letters(&mut self, ids: &[Uuid]) {
        self.read_until_seen(ids, identity).await;
    }

    async fn read_until_seen(&mut self, ids: &[Uuid], id_of: impl Fn(&OwnedMessage) -> String) {
        let mut missing: HashSet<String> = ids.iter().map(Uuid::to_string).collect();
        for record in &self.records {
            missing.remove(&id_of(record));
        }
        let deadline = Instant::now() + PATIENCE;
        while !missing.is_empty() {
            let left = missing.len();
            assert!(Instant::now() < deadline, "{left} records are missing");
            match self.consumer.poll(Duration::ZERO) {
                Some(record) => {
                    let record = record.unwrap().detach();
                    missing.remove(&id_of(&record));
                    self.records.push(record);
                }
                None => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// Reads everything that the topic holds now.
    pub(crate) async fn read_to_the_end(&mut self, topic: &str) {
        let count = usize::try_from(record_count(topic)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while self.records.len() < count {
            let seen = self.records.len();
            assert!(Instant::now() < deadline, "{seen} of {count} records");
            match self.consumer.poll(Duration::ZERO) {
                Some(record) => self.records.push(record.unwrap().detach()),
                None => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// What was read, without repeats: records leave at least once, and a machine that stands still for
    /// seconds takes a publisher's lanes from it before it has marked what it sent.
    pub(crate) fn distinct(&self) -> Vec<&OwnedMessage> {
        let mut seen = HashSet::new();
        let records = self.records.iter();
        records
            .filter(|record| seen.insert(identity(record)))
            .collect()
    }

    /// The ids of the events of a key, each where it came first.
    pub(crate) fn first_occurrences(&self, key: AccountId) -> Vec<Uuid> {
        let key = key.to_string();
        let mut seen = HashSet::new();
        self.records
            .iter()
            .filter(|record| record.key() == Some(key.as_bytes()))
            .map(|record| header(record, "ce_id").parse().unwrap())
            .filter(|id: &Uuid| seen.insert(*id))
            .collect()
    }
}

/// The dead letter that a record is, or is a replay of; or else its event.
pub(crate) fn identity(record: &OwnedMessage) -> String {
    let letter = last_header(record, "dlq.id");
    letter.unwrap_or_else(|| header(record, "ce_id"))
}

/// How many records a topic has in all.
pub(crate) fn record_count(topic: &str) -> i64 {
    let admin = admin();
    let count = |partition| {
        let (low, high) = admin
            .inner()
            .fetch_watermarks(topic, partition, PATIENCE)
            .unwrap();
        high - low
    };
    let metadata = admin.inner().fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions().iter();
    partitions.map(|partition| count(partition.id())).sum()
}

pub(crate) fn header(record: &OwnedMessage, name: &str) -> String {
    let headers = record.headers().expect("events have headers");
    let mut found = headers.iter().filter(|header| header.key == name);
    let value = found.next().expect(name).value.expect(name);
    assert!(found.next().is_none(), "{name} is there once");
    String::from_utf8(value.to_vec()).unwrap()
}

/// All headers in their order, each with its bytes.
pub(crate) fn headers(record: &OwnedMessage) -> Vec<(String, Option<Vec<u8>>)> {
    let headers = record.headers().into_iter().flat_map(Headers::iter);
    headers
        .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
        .collect()
}

/// The last header of a name, as text.
pub(crate) fn last_header(record: &OwnedMessage, name: &str) -> Option<String> {
    let headers = headers(record);
    let (_, value) = headers.into_iter().rev().find(|(key, _)| key == name)?;
    Some(String::from_utf8(value?).unwrap())
}
