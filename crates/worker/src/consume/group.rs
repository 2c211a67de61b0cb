use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    consumer::{BaseConsumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    topic_partition_list::TopicPartitionListElem,
};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::event::Place;

/// Which partitions are this member's. Its callbacks run inside the consumer's poll, so they only
/// take notes.
#[derive(Debug, Default)]
pub struct GroupContext {
    notes: Mutex<Notes>,
    assigned: Notify,
}

#[derive(Debug, Default)]
struct Notes {
    /// The epoch in which each partition was assigned.
    epochs: HashMap<i32, u64>,
    last_epoch: u64,
    unchecked: Vec<i32>,
}

impl GroupContext {
    /// Waits until partitions were assigned since this was last waited for.
    pub(super) async fn assigned(&self) {
        self.assigned.notified().await;
    }

    /// The epoch in which a partition is this member's; none if it is not.
    pub(super) fn epoch(&self, partition: i32) -> Option<u64> {
        self.notes().epochs.get(&partition).copied()
    }

    /// Whether a record's partition has been this member's ever since the record came.
    pub(super) fn owns(&self, place: Place) -> bool {
        self.epoch(place.partition) == Some(place.epoch)
    }

    pub(super) fn unchecked(&self) -> Vec<i32> {
        self.notes().unchecked.clone()
    }

    pub(super) fn checked(&self, partitions: &[i32]) {
        self.notes()
            .unchecked
            .retain(|partition| !partitions.contains(partition));
    }

    fn assign(&self, partitions: &[i32]) {
        let mut notes = self.notes();
        notes.last_epoch += 1;
        let epoch = notes.last_epoch;
        notes
            .epochs
            .extend(partitions.iter().map(|partition| (*partition, epoch)));
        notes.unchecked.extend(partitions);
        drop(notes);
        self.assigned.notify_one();
    }

    fn revoke(&self, partitions: &[i32]) {
        let mut notes = self.notes();
        notes
            .epochs
            .retain(|partition, _| !partitions.contains(partition));
        notes
            .unchecked
            .retain(|partition| !partitions.contains(partition));
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for GroupContext {
    fn error(&self, error: KafkaError, reason: &str) {
        warn!(%error, reason, "the broker's client reports an error; it goes on by itself");
    }
}

impl ConsumerContext for GroupContext {
    /// Takes notes before the client acts on the change: a record of a new partition finds its
    /// epoch, and one of a lost partition finds none.
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) if list.count() > 0 => {
                let partitions = partitions(list);
                info!(?partitions, "partitions assigned");
                self.assign(&partitions);
            }
            Rebalance::Revoke(list) if list.count() > 0 => {
                let partitions = partitions(list);
                info!(?partitions, "partitions revoked");
                self.revoke(&partitions);
            }
            Rebalance::Assign(_) | Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => warn!(%error, "rebalancing failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            warn!(%error, "offsets were not committed; the next commit makes up for it");
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements()
        .iter()
        .map(TopicPartitionListElem::partition)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: i32, epoch: u64) -> Place {
        Place {
            partition,
            offset: 0,
            epoch,
        }
    }

    #[test]
    fn a_partition_that_came_back_disowns_what_came_before() {
        let context = GroupContext::default();
        context.assign(&[1, 2]);
        let before = context.epoch(1).unwrap();
        assert!(context.owns(place(1, before)));
        context.revoke(&[1]);
        assert!(!context.owns(place(1, before)));
        assert!(context.owns(place(2, before)));
        context.assign(&[1]);
        assert!(!context.owns(place(1, before)));
        assert!(context.owns(place(1, context.epoch(1).unwrap())));
    }

    #[test]
    fn a_partition_is_checked_once_for_each_assignment() {
        let context = GroupContext::default();
        context.assign(&[1, 2]);
        assert_eq!(context.unchecked(), [1, 2]);
        context.checked(&[1]);
        assert_eq!(context.unchecked(), [2]);
        context.revoke(&[2]);
        assert!(context.unchecked().is_empty());
        context.assign(&[1]);
        assert_eq!(context.unchecked(), [1]);
    }
}
