//! Whether the log still has what the group has not read.

use std::time::Duration;

use metrics::counter;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
    error::KafkaResult,
};
use tracing::error;

use super::GroupContext;

/// How long one answer of the broker may take.
const WAIT: Duration = Duration::from_secs(2);

/// A committed offset that the log cannot serve: the consumer starts at the log's beginning
/// instead, and what stood between was never applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The partition.
    partition: i32,
    /// Where the group wanted to go on.
    committed: i64,
    /// The first offset that the log has.
    log_start: i64,
    /// The offset behind the log's last record.
    log_end: i64,
}

impl Finding {
    fn of(partition: i32, committed: i64, (log_start, log_end): (i64, i64)) -> Option<Self> {
        (committed < log_start || committed > log_end).then_some(Self {
            partition,
            committed,
            log_start,
            log_end,
        })
    }

    /// Says it aloud.
    pub(super) fn report(&self, topic: &str) {
        let Self {
            partition,
            committed,
            log_start,
            log_end,
        } = *self;
        counter!(
            "consumer_offset_out_of_range_total",
            "topic" => topic.to_owned(), "partition" => partition.to_string(),
        )
        .increment(1);
        error!(
            topic,
            partition,
            committed,
            log_start,
            log_end,
            "the log lost events that were not applied: look for transactions still PENDING and \
             send them again (publisher resend)"
        );
    }
}

/// What became of a comparison.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
    /// By partition: the committed offset that the log has, so the next one to come.
    pub(super) next: Vec<(i32, i64)>,
}

/// Compares the group's committed offsets with the log; blocks.
///
/// # Errors
/// If the broker does not answer.
pub(super) fn check(
    consumer: &StreamConsumer<GroupContext>,
    topic: &str,
    partitions: &[i32],
) -> KafkaResult<Compared> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        asked.add_partition(topic, *partition);
    }
    let mut compared = Compared::default();
    for element in consumer.committed_offsets(asked, WAIT)?.elements() {
        element.error()?;
        // A group that has committed nothing yet starts at the log's beginning, rightly.
        if let Offset::Offset(committed) = element.offset() {
            let partition = element.partition();
            let log = consumer.fetch_watermarks(topic, partition, WAIT)?;
            match Finding::of(partition, committed, log) {
                Some(finding) => compared.findings.push(finding),
                None => compared.next.push((partition, committed)),
            }
        }
    }
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_offset_outside_the_log_is_a_finding() {
        for inside in [10, 15, 20] {
            assert_eq!(Finding::of(0, inside, (10, 20)), None);
        }
        for outside in [0, 9, 21] {
            assert_eq!(
                Finding::of(0, outside, (10, 20)).unwrap().committed,
                outside
            );
        }
    }
}
