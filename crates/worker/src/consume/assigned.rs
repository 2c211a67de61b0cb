use std::sync::Arc;

use rdkafka::{consumer::Consumer, error::KafkaError};
use tokio::task::spawn_blocking;

use super::{Intake, log_start};
use crate::event::Place;

/// What a member does about partitions that are newly its own.
impl Intake {
    /// Whether the group has assigned this member its partitions, be it none.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.consumer.context().has_joined()
    }

    /// Newly assigned partitions whose committed offsets were not compared with the log yet.
    #[must_use]
    pub fn unchecked(&self) -> Vec<i32> {
        self.consumer.context().unchecked()
    }

    /// Compares the group's offsets in newly assigned partitions with what the log still has.
    ///
    /// # Errors
    /// If the broker does not answer; then they are still unchecked.
    pub async fn check_assigned(&mut self, partitions: Vec<i32>) -> Result<(), KafkaError> {
        let consumer = Arc::clone(&self.consumer);
        let topic = self.topic.clone();
        let asked = partitions.clone();
        let epochs: Vec<_> = partitions
            .iter()
            .map(|partition| (*partition, consumer.context().epoch(*partition)))
            .collect();
        let check = spawn_blocking(move || log_start::check(&consumer, &topic, &asked));
        let compared = self
            .serve_during(check)
            .await
            .map_err(|_| KafkaError::Canceled)??;
        for finding in &compared.findings {
            finding.report(&self.topic);
        }
        for (partition, offset) in compared.next {
            // The epoch in which it was asked: an answer says nothing about a later assignment.
            if let Some((_, Some(epoch))) = epochs.iter().find(|(asked, _)| *asked == partition) {
                self.gaps.start(Place {
                    partition,
                    offset,
                    epoch: *epoch,
                });
            }
        }
        self.consumer.context().checked(&partitions);
        Ok(())
    }
}
