//! How far the worker's group is behind, seen from outside: also when every worker is dead.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use tokio::{task::spawn_blocking, time::interval};
use tracing::debug;

use crate::{quiet::Quiet, settings::KafkaSettings};

/// How often the lag is measured.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a question to the brokers may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How many events are taken out of the client's queue before each measurement.
const POLLS_MAX: usize = 1_000;

/// Measures a group's lag. It asks for what the group has committed and never joins it, so the
/// group does not notice.
pub(crate) struct LagMeter {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    partitions: i32,
}

/// Measures again and again, until it is dropped.
pub(crate) async fn run(settings: KafkaSettings) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    let mut meter = None;
    loop {
        ticks.tick().await;
        if meter.is_none() {
            meter = LagMeter::new(&settings).map(Arc::new).ok();
        }
        let Some(meter) = meter.clone() else { continue };
        match spawn_blocking(move || meter.measure()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the consumer lag was not measured"),
            Err(error) => debug!(%error, "the consumer lag was not measured"),
        }
    }
}

impl LagMeter {
    pub(crate) fn new(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &settings.kafka_brokers)
            .set("client.id", "postonce-publisher-lag")
            .set("group.id", &settings.consumer_group)
            .set("enable.auto.commit", "false")
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false")
            .create_with_context(Quiet)?;
        Ok(Self {
            consumer,
            topic: settings.transactions_topic.clone(),
            partitions: settings.topic_partitions,
        })
    }

    /// Sets `consumer_lag{topic,partition}`. It waits for the brokers.
    pub(crate) fn measure(&self) -> Result<(), KafkaError> {
        // What nobody fetches would pile up in the client. A poll takes one event out of its queue,
        // and answers nothing for one that was a log line.
        for _ in 0..POLLS_MAX {
            let _ = self.consumer.poll(Duration::ZERO);
        }
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&self.topic, 0, self.partitions - 1);
        let committed = self.consumer.committed_offsets(asked, ANSWER_TIMEOUT)?;
        for element in committed.elements() {
            let partition = element.partition();
            // What cannot be told is not the whole log.
            if let Err(error) = element.error() {
                debug!(%error, partition, "a committed offset is not known");
                continue;
            }
            let (low, high) =
                self.consumer
                    .fetch_watermarks(&self.topic, partition, ANSWER_TIMEOUT)?;
            let labels = [
                ("topic", self.topic.clone()),
                ("partition", partition.to_string()),
            ];
            gauge!("consumer_lag", &labels).set(lag(element.offset(), low, high));
        }
        Ok(())
    }
}

/// Records that the group has still to read. A group that has committed nothing begins at the start
/// of the log.
#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float, and lags are below 2^53"
)]
fn lag(committed: Offset, low: i64, high: i64) -> f64 {
    let next = match committed {
        Offset::Offset(offset) => offset.max(low),
        _ => low,
    };
    (high - next).max(0) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_what_is_left_to_read() {
        let table = [
            (Offset::Offset(7), 0, 10, 3.0),
            (Offset::Offset(10), 0, 10, 0.0),
            (Offset::Invalid, 2, 10, 8.0),
            // What the log has dropped cannot be read any more.
            (Offset::Offset(1), 4, 10, 6.0),
            // A commit just now, behind an older look at the log's end.
            (Offset::Offset(12), 0, 10, 0.0),
        ];
        for (committed, low, high, expected) in table {
            let lag = lag(committed, low, high);
            assert!(
                (lag - expected).abs() < f64::EPSILON,
                "{committed:?} {low} {high}: {lag}"
            );
        }
    }
}
