//! The publisher's heart: rows out of the outbox, records into Kafka, marks back.
//!
//! No transaction is open while a row is on its way: a step selects, or marks, each in one statement
//! that commits by itself. What the process knows of rows on their way is lost with it, and then
//! they are sent again.

mod claim;
mod couriers;
mod flights;
mod give_up;
mod guard;
mod land;
mod letter;
mod pace;
mod polls;
mod send;
mod sight;
mod sql;
#[cfg(test)]
mod tests;
mod troubles;

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use common::types::{DeadLetterClass, Lane, LaneSet};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
pub(crate) use sql::{SESSION_OPTIONS, remove_unmarked};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    couriers::{Couriers, overdue_at},
    flights::{Flights, SentRow},
    guard::Guard,
    pace::RowsSent,
    polls::Polls,
    troubles::Troubles,
};
use crate::{
    Database,
    backoff::Backoff,
    courier::Signals,
    health::HealthSide,
    hinted::Hinted,
    lanes::Ownership,
    settings::{KafkaSettings, PublishingSettings, TOPICS},
    topics::TopicsState,
};

/// The first pause between two steps, or two looks at all lanes, that find nothing; it doubles up to
/// `POLL_INTERVAL_MAX_MS`.
const POLL_INTERVAL_FIRST: Duration = Duration::from_millis(10);
/// Pauses while the database fails.
const FAILURE_PAUSE_FIRST: Duration = Duration::from_millis(50);
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It filled its batch: more is surely waiting.
    Full,
    /// It moved some rows.
    Moved,
    /// There was nothing to do, or nothing may be done now.
    Idle,
    /// Shutting down, and no row is on its way any more.
    Drained,
}

/// What a cycle shares with the publisher's other parts.
pub(crate) struct CycleParts {
    pub(crate) database: Database,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) topics: watch::Receiver<TopicsState>,
    /// When the broker last answered a question about its topics.
    pub(crate) broker_answered: watch::Receiver<Option<Instant>>,
    pub(crate) recheck_topics: Arc<Notify>,
    /// The lanes to look at.
    pub(crate) hinted: Arc<Hinted>,
    pub(crate) outbox: HealthSide,
    pub(crate) broker: HealthSide,
    pub(crate) lanes: HealthSide,
}

/// The loop that publishes.
pub(crate) struct Cycle {
    parts: CycleParts,
    topics: [String; TOPICS],
    partitions: i32,
    settings: PublishingSettings,
    flights: Flights,
    troubles: Troubles,
    couriers: Couriers,
    /// When to look at all lanes.
    polls: Polls,
    /// Rows that arrived and are not marked yet.
    landed: Landed,
    /// Rows that were refused, where that is not written down yet.
    refusals: Vec<Refusal>,
    /// Whether more of them may become dead letters.
    guard: Guard,
    /// What the last step sent.
    rows_sent: RowsSent,
    /// The lane to begin the next claim with, so that none is always last.
    first_lane: i16,
    metrics: CycleMetrics,
}

#[derive(Debug, Default)]
struct Landed {
    seqs: Vec<i64>,
    account_ids: Vec<Uuid>,
}

impl Landed {
    fn push(&mut self, row: SentRow) {
        self.seqs.push(row.seq);
        self.account_ids.push(row.account_id);
    }
}

#[derive(Clone, Debug)]
struct Refusal {
    lane: Lane,
    row: SentRow,
    reason: String,
    /// Whether the row becomes a dead letter.
    for_good: bool,
}

/// Handles, because looking a metric up by its labels costs more than counting.
struct CycleMetrics {
    acknowledged: [Counter; TOPICS],
    refused: [Counter; TOPICS],
    unknown: [Counter; TOPICS],
    dead_letters: Counter,
    insert_to_ack: Histogram,
    lanes_owned: Gauge,
}

impl CycleMetrics {
    fn new(topics: &[String; TOPICS]) -> Self {
        let counters = |result: &'static str| {
            let labelled = |topic: &String| counter!("outbox_published_total", "topic" => topic.clone(), "result" => result);
            topics.each_ref().map(labelled)
        };
        Self {
            acknowledged: counters("acknowledged"),
            refused: counters("refused"),
            unknown: counters("unknown"),
            dead_letters: counter!("dlq_messages_total", "class" => DeadLetterClass::RefusedByBroker.as_str()),
            insert_to_ack: histogram!("outbox_insert_to_ack_seconds"),
            lanes_owned: gauge!("outbox_lanes_owned"),
        }
    }
}

impl Cycle {
    pub(crate) fn new(
        parts: CycleParts,
        kafka: &KafkaSettings,
        settings: PublishingSettings,
    ) -> Self {
        let retry = Duration::from_millis(settings.lane_retry_interval_ms);
        let poll_max = Duration::from_millis(settings.poll_interval_max_ms);
        let couriers = Couriers::new(
            kafka.kafka_brokers.clone(),
            kafka.topic_partitions,
            Signals {
                wake: Arc::clone(&parts.hinted),
                recheck: Arc::clone(&parts.recheck_topics),
            },
            parts.broker.clone(),
        );
        Self {
            topics: kafka.topics(),
            partitions: kafka.topic_partitions,
            flights: Flights::new(),
            troubles: Troubles::new(retry),
            couriers,
            polls: Polls::new(POLL_INTERVAL_FIRST, poll_max, Instant::now()),
            landed: Landed::default(),
            refusals: Vec::new(),
            guard: Guard::new(),
            rows_sent: RowsSent::default(),
            first_lane: 0,
            metrics: CycleMetrics::new(&kafka.topics()),
            parts,
            settings,
        }
    }

    /// Publishes until the token is cancelled and every row on its way is reported and marked.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let poll_max = Duration::from_millis(self.settings.poll_interval_max_ms);
        let mut pauses = Backoff::new(POLL_INTERVAL_FIRST, poll_max);
        let mut failures = Backoff::new(FAILURE_PAUSE_FIRST, FAILURE_PAUSE_MAX);
        loop {
            let started = Instant::now();
            let draining = token.is_cancelled();
            self.parts.ownership.step_begins(started);
            let outcome = self.step(draining).await;
            let took = started.elapsed();
            match &outcome {
                Ok(_) => {
                    failures.reset();
                    self.parts.ownership.step_succeeded();
                    self.parts.outbox.set_ready();
                }
                Err(error) => {
                    let reason = format!("the outbox cannot be read or marked: {error}");
                    self.parts.outbox.set_unready(reason);
                    self.parts.hinted.keep(LaneSet::ALL);
                }
            }
            match outcome {
                Ok(Outcome::Drained) => return,
                Ok(Outcome::Full) => continue,
                Ok(Outcome::Moved) => pauses.reset(),
                Ok(Outcome::Idle) => {}
                // Hints and reports do not shorten this pause: each would be another failure.
                Err(_) => {
                    sleep(failures.pause()).await;
                    continue;
                }
            }
            self.wait(pauses.pause(), draining, &token).await;
            let lane_rows_max = self.settings.publish_lane_rows_max;
            let next = started + self.rows_sent.step_interval(lane_rows_max, took);
            // The timer would take up to a millisecond even for what is past.
            if Instant::now() < next {
                sleep_until(next).await;
            }
        }
    }

    /// Waits for a hint, a report, the next look at all lanes, the next try of a stopped lane, the
    /// time at which an answer is overdue, or the pause's end.
    async fn wait(&self, pause: Duration, draining: bool, token: &CancellationToken) {
        let now = Instant::now();
        let due = [self.troubles.due_at(), overdue_at(&self.flights)];
        let next = due.into_iter().flatten().filter(|due| *due > now).min();
        let pause_ends = self.polls.due_at().min(now + pause);
        let until = next.map_or(pause_ends, |due| due.min(pause_ends));
        tokio::select! {
            () = self.parts.hinted.woken() => {}
            () = sleep_until(until) => {}
            () = token.cancelled(), if !draining => {}
        }
    }

    /// One round: takes in reports, marks what arrived, claims lanes that are free and to be looked
    /// at (all of them, if a poll is due), sends their rows. It never waits for the broker.
    pub(crate) async fn step(&mut self, draining: bool) -> Result<Outcome, sqlx::Error> {
        let reported = self.gather();
        self.settle().await?;
        let owned = self.parts.ownership.owned();
        self.metrics
            .lanes_owned
            .set(f64::from(u8::try_from(owned.len()).unwrap_or(u8::MAX)));
        self.troubles.keep_only(owned);
        self.rows_sent = RowsSent::default();
        let limit = self.message_bytes_max();
        let abandoned = self.couriers.tend(&mut self.flights, limit);
        self.parts.hinted.keep(abandoned);
        let unannounced = self.poll_if_due(Instant::now());
        let sent = match limit {
            Some(limit) if !draining => self.claim(limit).await?,
            _ => Outcome::Idle,
        };
        if unannounced && self.rows_sent.any() {
            self.polls.no_hints_come(Instant::now());
        }
        self.couriers.tell(&self.flights, Instant::now());
        self.tell_lanes();
        Ok(match sent {
            _ if draining && self.flights.outstanding() == 0 => Outcome::Drained,
            Outcome::Idle if reported => Outcome::Moved,
            sent => sent,
        })
    }

    /// Looks at all lanes in this step if that is due, at those with rows on their way as soon as
    /// they are free. Whether it is, and no hint was heard since the last time, is the answer.
    fn poll_if_due(&mut self, now: Instant) -> bool {
        let due = self.polls.begin(now);
        if due {
            self.parts.hinted.keep(LaneSet::ALL);
        }
        due && !self.parts.hinted.has_heard()
    }

    /// The topics' limit for a message, if anything may be sent at all.
    fn message_bytes_max(&self) -> Option<i32> {
        match *self.parts.topics.borrow() {
            TopicsState::Ready { message_bytes_max } => Some(message_bytes_max),
            TopicsState::NotReady => None,
        }
    }

    fn tell_lanes(&self) {
        match self.troubles.reason() {
            Some(reason) => self.parts.lanes.set_unready(reason),
            None => self.parts.lanes.set_ready(),
        }
    }
}

/// Seconds since a time by the database's clock; clocks that differ do not make it negative.
fn seconds_since(time: chrono::DateTime<Utc>) -> f64 {
    (Utc::now() - time).as_seconds_f64().max(0.0)
}
