use std::{collections::HashMap, sync::Arc};

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
        // An answer says nothing about an assignment later than the question.
        let epochs: HashMap<i32, u64> = partitions
            .iter()
            .filter_map(|at| Some((*at, consumer.context().epoch(*at)?)))
            .collect();
        let check = spawn_blocking(move || log_start::check(&consumer, &topic, &partitions));
        let compared = self
            .serve_during(check)
            .await
            .map_err(|_| KafkaError::Canceled)??;
        for finding in &compared.findings {
            finding.report(&self.topic);
        }
        for (partition, offset) in compared.next {
            if let Some(&epoch) = epochs.get(&partition) {
                self.gaps.start(Place {
                    partition,
                    offset,
                    epoch,
                });
            }
        }
        for (partition, epoch) in epochs {
            self.consumer.context().checked(partition, epoch);
        }
        Ok(())
    }
}
