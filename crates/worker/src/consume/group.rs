use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
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
    /// Whether the group has told this member what is its, be it nothing.
    joined: bool,
    /// By partition: the position that was sent and not confirmed.
    unconfirmed: BTreeMap<i32, Position>,
}

/// A position of the group that is to be committed.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// The next offset to read.
    offset: i64,
    /// Whether it is to be sent: it is new, or its last commit failed. One under way is not.
    due: bool,
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

    /// Notes that a partition was checked, unless it went and came back meanwhile.
    pub(super) fn checked(&self, partition: i32, epoch: u64) {
        let mut notes = self.notes();
        if notes.epochs.get(&partition) == Some(&epoch) {
            notes.unchecked.retain(|unchecked| *unchecked != partition);
        }
    }

    /// Whether this member was assigned its partitions, be it none, since it subscribed.
    pub(super) fn has_joined(&self) -> bool {
        self.notes().joined
    }

    /// Positions to commit: these, and those of other partitions whose commit failed.
    pub(super) fn to_commit(&self, next: BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
        let mut notes = self.notes();
        for (partition, offset) in next {
            let position = Position { offset, due: true };
            notes.unconfirmed.insert(partition, position);
        }
        let due = notes.unconfirmed.iter_mut().filter(|(_, at)| at.due);
        due.map(|(partition, position)| {
            position.due = false;
            (*partition, position.offset)
        })
        .collect()
    }

    /// Notes that a commit came to its end. A partition that goes on makes up for one that failed;
    /// one that falls idle would not, so the position is kept until it is confirmed.
    pub(super) fn committed(&self, partition: i32, offset: i64, confirmed: bool) {
        let mut notes = self.notes();
        if let Entry::Occupied(mut kept) = notes.unconfirmed.entry(partition) {
            // A later commit of the partition speaks for itself.
            if kept.get().offset == offset {
                if confirmed {
                    kept.remove();
                } else {
                    kept.get_mut().due = true;
                }
            }
        }
    }

    fn assign(&self, partitions: &[i32]) {
        let mut notes = self.notes();
        notes.joined = true;
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
        notes
            .unconfirmed
            .retain(|partition, _| !partitions.contains(partition));
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
            Rebalance::Assign(list) => {
                let partitions = partitions(list);
                if !partitions.is_empty() {
                    info!(?partitions, "partitions assigned");
                }
                self.assign(&partitions);
            }
            Rebalance::Revoke(list) if list.count() > 0 => {
                let partitions = partitions(list);
                info!(?partitions, "partitions revoked");
                self.revoke(&partitions);
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => warn!(%error, "rebalancing failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = &result {
            warn!(%error, "offsets were not committed; that is made up for");
        }
        for element in offsets.elements() {
            if let Offset::Offset(offset) = element.offset() {
                let confirmed = result.is_ok() && element.error().is_ok();
                self.committed(element.partition(), offset, confirmed);
            }
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
    fn a_failed_commit_is_made_up_for_until_it_is_confirmed_or_the_partition_goes() {
        let context = GroupContext::default();
        let send = |next: &[(i32, i64)]| -> Vec<_> {
            let sent = context.to_commit(next.iter().copied().collect());
            sent.into_iter().collect()
        };
        context.assign(&[1, 2]);
        assert_eq!(send(&[(1, 10), (2, 20)]), [(1, 10), (2, 20)]);
        assert_eq!(send(&[]), [], "they are under way");
        context.committed(1, 10, true);
        context.committed(2, 20, false);
        assert_eq!(send(&[]), [(2, 20)]);
        context.committed(2, 20, false);
        assert_eq!(send(&[(1, 11)]), [(1, 11), (2, 20)]);
        // A newer position overtakes the failure of an older one.
        assert_eq!(send(&[(1, 12)]), [(1, 12)]);
        context.committed(1, 11, false);
        assert_eq!(send(&[]), []);
        context.committed(1, 12, false);
        context.committed(2, 20, false);
        context.revoke(&[2]);
        assert_eq!(send(&[]), [(1, 12)]);
    }

    #[test]
    fn an_assignment_of_nothing_has_joined_too() {
        let context = GroupContext::default();
        assert!(!context.has_joined());
        context.assign(&[]);
        assert!(context.has_joined());
        assert!(context.unchecked().is_empty());
    }

    #[test]
    fn a_partition_is_checked_once_for_each_assignment() {
        let context = GroupContext::default();
        context.assign(&[1, 2]);
        assert_eq!(context.unchecked(), [1, 2]);
        let first = context.epoch(1).unwrap();
        context.checked(1, first);
        assert_eq!(context.unchecked(), [2]);
        context.revoke(&[2]);
        assert!(context.unchecked().is_empty());
        context.revoke(&[1]);
        context.assign(&[1]);
        // An answer to what was asked before.
        context.checked(1, first);
        assert_eq!(context.unchecked(), [1]);
    }
}
