//! The consumer: which records come next, and how far the group has come.

mod assigned;
mod client;
mod gaps;
mod group;
mod held;
mod log_start;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    time::Duration,
};

pub use client::{broker, topic_exists};
use futures_util::{FutureExt, StreamExt};
use gaps::Gaps;
pub use group::GroupContext;
use held::Held;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::{KafkaError, KafkaResult},
};
use tokio::{
    select,
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{config::KafkaSettings, event::Item};

/// How long work on a slice may take, all its attempts and the pauses between them, before the consumer is
/// paused, and polled beside it so that rebalances go on. Most slices are done long before; pausing for each would throw away what was
/// prefetched.
const UNPOLLED_MAX: Duration = Duration::from_millis(500);

/// How often the client is asked before it counts as having nothing: asked once, it says so as well
/// when it has just told of a commit's end.
const POLLS_MAX: u32 = 3;

/// Most bytes of records that make a slice, and that are held for the next one: as much as a slice of our
/// own events takes several times over. A larger record comes alone.
pub const SLICE_BYTES_MAX: usize = 4 << 20;

/// How long nothing may come before it is looked whether a failed commit is to be made up for.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// What waits to be applied.
#[derive(Debug, Default)]
pub struct Collected {
    /// In order within each partition, without gaps.
    pub items: Vec<Item>,
    /// The consumer will bring nothing any more.
    pub fatal: Option<KafkaError>,
}

/// This worker's membership of the consumer group.
pub struct Intake {
    consumer: Arc<StreamConsumer<GroupContext>>,
    topic: String,
    slice_events_max: usize,
    /// Records that came while a slice was worked on.
    held: Held,
    /// The last slice was full: more is waiting, which is read while that one is worked on.
    backlog: bool,
    gaps: Gaps,
    /// When the last slice was collected. The consumer is polled for it, or in the moment after it for the
    /// next one.
    collected_at: Instant,
    paused: bool,
    fatal: Option<KafkaError>,
}

impl Intake {
    /// Joins the group. The topic should exist; one that does not is waited for by the client, with
    /// an error each time it looks.
    ///
    /// # Errors
    /// If the client refuses its configuration.
    pub fn join(settings: &KafkaSettings, slice_events_max: u32) -> KafkaResult<Self> {
        let consumer = client::group_member(settings)?;
        consumer.subscribe(&[&settings.transactions_topic])?;
        Ok(Self {
            consumer: Arc::new(consumer),
            topic: settings.transactions_topic.clone(),
            slice_events_max: usize::try_from(slice_events_max).unwrap_or(usize::MAX),
            held: Held::default(),
            backlog: false,
            gaps: Gaps::default(),
            collected_at: Instant::now(),
            paused: false,
            fatal: None,
        })
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// How many records were read ahead and wait for the next slice.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Waits until there is something, then takes all that is there, up to a slice. A lone event
    /// waits for no other. Comes back empty when partitions were assigned, when nothing came for a
    /// while, or at the stop token.
    pub async fn collect(&mut self, stop: &CancellationToken) -> Collected {
        self.resume();
        let mut collected = Collected::default();
        // What came before its partition was revoked is another member's now.
        let context = Arc::clone(self.consumer.context());
        self.held.retain(|place| context.owns(place));
        if self.held.is_empty() && self.fatal.is_none() {
            let consumer = Arc::clone(&self.consumer);
            select! {
                biased;
                () = stop.cancelled() => return collected,
                () = consumer.context().assigned() => {
                    // librdkafka keeps a partition that was paused when it was revoked paused when it
                    // comes back: only a resumption of all that is assigned now lets it be read.
                    self.paused = true;
                    return collected;
                }
                record = consumer.recv() => self.take(record),
                () = sleep(IDLE_MAX) => {
                    self.commit(&[]);
                    return collected;
                }
            }
        }
        let mut bytes = 0;
        self.backlog = loop {
            if collected.items.len() == self.slice_events_max {
                break true;
            }
            let Some(next_bytes) = self.next_waiting() else {
                break false;
            };
            bytes += next_bytes;
            if bytes > SLICE_BYTES_MAX && !collected.items.is_empty() {
                break true;
            }
            collected.items.extend(self.held.pop());
        };
        collected.fatal = self.fatal.take();
        self.collected_at = Instant::now();
        collected
    }

    /// How many bytes the next record has, if one waits.
    fn next_waiting(&mut self) -> Option<usize> {
        if self.held.is_empty() {
            let consumer = Arc::clone(&self.consumer);
            let record = (0..POLLS_MAX).find_map(|_| consumer.recv().now_or_never())?;
            self.take(record);
        }
        self.held.next_bytes()
    }

    /// Runs a piece of the work on a slice to its end. Behind a full slice the next is read meanwhile. If
    /// the slice takes long, the group is served: paused, so that nothing piles up here.
    pub async fn serve_during<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        if !self.paused {
            select! {
                biased;
                output = &mut work => return output,
                () = sleep_until(self.collected_at + UNPOLLED_MAX) => {}
                never = self.read_ahead() => match never {},
            }
            self.pause();
        }
        let consumer = Arc::clone(&self.consumer);
        let mut records = consumer.stream();
        loop {
            let record = select! {
                biased;
                output = &mut work => return output,
                Some(record) = records.next() => record,
            };
            self.take(record);
            // A partition that was assigned meanwhile is not paused yet.
            self.pause();
        }
    }

    /// Holds at most a slice, and does not come back.
    async fn read_ahead(&mut self) -> Infallible {
        let consumer = Arc::clone(&self.consumer);
        while self.backlog
            && self.held.len() < self.slice_events_max
            && self.held.bytes() < SLICE_BYTES_MAX
        {
            let record = consumer.recv().await;
            self.take(record);
        }
        pending().await
    }

    /// Stays a member and consumes nothing, until the stop token.
    pub async fn stand_still(&mut self, stop: &CancellationToken) {
        self.pause();
        self.serve_during(stop.cancelled()).await;
    }

    fn take(&mut self, record: KafkaResult<rdkafka::message::BorrowedMessage<'_>>) {
        match record {
            Ok(record) => {
                if let Some(epoch) = self.consumer.context().epoch(record.partition()) {
                    let item = Item::read(&record, epoch);
                    if let Some(gap) = self.gaps.follow(item.place()) {
                        gap.report(&self.topic);
                    }
                    self.held.push(item);
                }
            }
            Err(error @ KafkaError::MessageConsumptionFatal(_)) => self.fatal = Some(error),
            // The context has logged it.
            Err(_) => {}
        }
    }

    /// Drops records whose partitions are no longer this worker's.
    pub fn retain_owned(&self, items: &mut Vec<Item>) {
        let context = self.consumer.context();
        let before = items.len();
        items.retain(|item| context.owns(item.place()));
        if items.len() < before {
            debug!(
                records = before - items.len(),
                "left to the partitions' new owner"
            );
        }
    }

    /// Commits how far the group has come: behind these records, which are done with. It does not
    /// wait; a rebalance and the consumer's end wait for commits under way (librdkafka's
    /// `wait_commit_cnt`). Positions whose commit failed are sent along. A commit that is lost means
    /// repeats, which are recognised.
    pub fn commit(&self, items: &[Item]) {
        let context = self.consumer.context();
        let owned = items
            .iter()
            .map(Item::place)
            .filter(|place| context.owns(*place));
        let next: BTreeMap<_, _> = owned.map(|at| (at.partition, at.offset + 1)).collect();
        let next = context.to_commit(next);
        let mut positions = TopicPartitionList::with_capacity(next.len());
        for (partition, offset) in &next {
            let (partition, offset) = (*partition, Offset::Offset(*offset));
            if let Err(error) = positions.add_partition_offset(&self.topic, partition, offset) {
                warn!(%error, partition, "the offset could not be committed");
            }
        }
        if positions.count() > 0
            && let Err(error) = self.consumer.commit(&positions, CommitMode::Async)
        {
            warn!(%error, "offsets could not be committed; that is made up for");
            for (partition, offset) in next {
                context.committed(partition, offset, false);
            }
        }
    }

    fn pause(&mut self) {
        self.paused = true;
        let paused = self
            .consumer
            .assignment()
            .and_then(|all| self.consumer.pause(&all));
        if let Err(error) = paused {
            warn!(%error, "the consumer could not be paused");
        }
    }

    fn resume(&mut self) {
        if !self.paused {
            return;
        }
        match self
            .consumer
            .assignment()
            .and_then(|all| self.consumer.resume(&all))
        {
            Ok(()) => self.paused = false,
            Err(error) => warn!(%error, "the consumer could not be resumed"),
        }
    }

    /// Leaves the group, so that its partitions go to others at once. The client's own end blocks
    /// its thread, so it gets one that the process's exit need not wait for.
    pub async fn leave(self) {
        let (done, left) = oneshot::channel();
        std::thread::spawn(move || {
            drop(self.consumer);
            let _ = done.send(());
        });
        let _ = left.await;
    }
}
