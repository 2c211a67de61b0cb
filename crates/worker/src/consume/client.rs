//! How librdkafka is configured, and why.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer, StreamConsumer},
    error::KafkaResult,
    types::RDKafkaRespErr,
};

use super::GroupContext;
use crate::config::{KafkaSettings, SERVICE};

fn base(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.kafka_brokers)
        .set("client.id", format!("postonce-{SERVICE}"))
        // A broker that comes back is found within a second, not within ten.
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true")
        // A broker that went without a word is given up after 10 s, not after a minute.
        .set("socket.timeout.ms", "10000");
    config
}

/// A member of the consumer group.
pub(super) fn group_member(settings: &KafkaSettings) -> KafkaResult<StreamConsumer<GroupContext>> {
    base(settings)
        .set("group.id", &settings.consumer_group)
        // The classic protocol is spoken by Redpanda and Kafka alike; cooperative, so that a
        // rebalance stops only the partitions that move.
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // A crashed member's partitions are taken over after this.
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "2000")
        .set("auto.offset.reset", "earliest")
        // An offset is committed when its event is in the ledger, and by nobody else.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // New partitions of the topic are noticed within this.
        .set("topic.metadata.refresh.interval.ms", "10000")
        // What is prefetched, over all partitions; the worker holds no more than this of a backlog.
        .set("queued.max.messages.kbytes", "6144")
        // A full queue empties within a fraction of a second; the default would let it stay empty
        // for the rest of one.
        .set("fetch.queue.backoff.ms", "10")
        // Answers come as soon as there is a byte (fetch.min.bytes is 1). A backlog comes in small
        // pieces, which are compressed on the wire and several times as large here: 63 MB resident
        // on 300,000 waiting events, where 8 MiB in all and 1 MiB a partition made it 125 MB on 200,000.
        .set("fetch.max.bytes", "1048576")
        .set("max.partition.fetch.bytes", "262144")
        .create_with_context(GroupContext::default())
}

/// A client that belongs to no group: it asks about the topic.
///
/// # Errors
/// If the client refuses its configuration.
pub fn broker(settings: &KafkaSettings) -> KafkaResult<BaseConsumer> {
    base(settings).create()
}

/// Whether the broker answers and has the topic; blocks until it answers or the time is over.
///
/// # Errors
/// If the broker does not answer in time.
pub fn topic_exists(client: &BaseConsumer, topic: &str, wait: Duration) -> KafkaResult<bool> {
    // Nobody reads this client's own events: its errors come back from the calls.
    while client.poll(Duration::ZERO).is_some() {}
    let metadata = client.fetch_metadata(Some(topic), wait)?;
    Ok(metadata.topics().iter().any(|found| {
        found.name() == topic
            && found
                .error()
                .is_none_or(|error| error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
            && !found.partitions().is_empty()
    }))
}
