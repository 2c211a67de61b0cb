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
        let mut missing: HashSet<String> = events.iter().map(Uuid::to_string).collect();
        for record in &self.records {
            missing.remove(&header(record, "ce_id"));
        }
        let deadline = Instant::now() + PATIENCE;
        while !missing.is_empty() {
            assert!(
                Instant::now() < deadline,
                "{} events are missing",
                missing.len()
            );
            match self.consumer.poll(Duration::ZERO) {
                Some(record) => {
                    let record = record.unwrap().detach();
                    missing.remove(&header(&record, "ce_id"));
                    self.records.push(record);
                }
                None => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// Reads until so many records were seen.
    pub(crate) async fn read_records(&mut self, count: usize) {
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
