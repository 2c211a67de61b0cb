//! The loop from the topic to the ledger.

mod halt;
mod pace;
mod work;

use std::time::{Duration, Instant};

use common::{
    admin::{Component, Readiness},
    outbox::WakeUp,
    types::{Lane, LaneSet},
};
pub use halt::Halt;
use pace::Pace;
use rdkafka::error::KafkaResult;
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use work::Work;

use crate::{
    backoff::Backoff,
    config::Config,
    consume::{Collected, Intake},
    event::Event,
    health::Side,
    metrics::{self, Tally},
    slice::{self, ApplyError, Expected, Outcome, Verdict},
};

/// How long one attempt may take before its connection counts as dead. Statements have a shorter
/// limit of their own, which only a server that is alive enforces. With the wait for a connection it
/// stays below the grace period of a shutdown, so that a slow attempt comes to its end and the
/// group is left behind it.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);

/// After a repeat, so many slices are expected to have some, too: they come in crowds, behind a
/// restart for instance.
const CAUTIOUS_SLICES: u32 = 16;

/// What one step did.
#[derive(Debug)]
pub enum Step {
    /// There was nothing to apply.
    Idle,
    /// A slice was applied, and its offsets are on their way.
    Applied(Tally),
    /// An event, or all of them, cannot be applied: what came before is, nothing behind it may be.
    Halted(Halt),
}

/// One member of the group: it applies what its partitions bring, slice by slice.
pub struct Worker {
    intake: Intake,
    pool: PgPool,
    results_topic: String,
    wake_up: WakeUp,
    database: Side,
    group: Component,
    ledger: Component,
    pace: Pace,
    /// For how many more slices repeats are expected.
    cautious_slices: u32,
    halted: Option<Halt>,
}

impl Worker {
    /// Joins the consumer group. The component `group` is ready when it did: when partitions, or none
    /// of them, were assigned, and their offsets compared with the log.
    ///
    /// # Errors
    /// If the client refuses its configuration.
    pub fn join(
        config: &Config,
        pool: PgPool,
        wake_up: WakeUp,
        database: Side,
        readiness: &Readiness,
    ) -> KafkaResult<Self> {
        let ledger = readiness.component("ledger");
        let intake = Intake::join(&config.kafka, config.slices.slice_events_max)?;
        ledger.set_ready();
        let group = readiness.component("group");
        let results_topic = config.kafka.results_topic.clone();
        Ok(Self {
            intake,
            pool,
            results_topic,
            wake_up,
            database,
            group,
            ledger,
            pace: Pace::new(config.slices.slice_events_max),
            cautious_slices: 0,
            halted: None,
        })
    }

    /// Works until the stop token, then leaves the group.
    ///
    /// A worker that halted stays a member, paused: its partitions wait here for somebody to mend
    /// the cause. If it left, the event that stopped it would go on to stop every other member, and
    /// with them the partitions that are well.
    pub async fn run(mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let started = Instant::now();
            match self.step(stop).await {
                Step::Idle => {}
                Step::Applied(tally) => {
                    let next = self.pace.next_slice(tally.events());
                    self.wait(next.saturating_sub(started.elapsed()), stop)
                        .await;
                }
                Step::Halted(_) => self.intake.stand_still(stop).await,
            }
        }
        self.leave().await;
    }

    /// Leaves the group, so that a successor goes on at once.
    pub async fn leave(self) {
        self.intake.leave().await;
    }

    /// Applies what waits, as one slice. An event that cannot be applied is never skipped: a worker
    /// that halted consumes no more, and only its successor tries again.
    pub async fn step(&mut self, stop: &CancellationToken) -> Step {
        if let Some(halt) = &self.halted {
            return Step::Halted(halt.clone());
        }
        let collected = self.intake.collect(stop).await;
        if !self.check_assigned(stop).await {
            return Step::Idle;
        }
        if self.intake.has_joined() {
            self.group.set_ready();
        }
        if let Some(reason) = collected.fatal {
            return self.halt(Halt::consumer(&reason));
        }
        let Collected {
            events, unusable, ..
        } = collected;
        if events.is_empty() && unusable.is_none() {
            return Step::Idle;
        }
        let settles = self.pace.settles(events.len(), Instant::now());
        self.wait(settles, stop).await;
        let mut work = Work::new(events);
        let tally = self.apply_all(&mut work, stop).await;
        if let Some(unusable) =
            unusable.filter(|unusable| !work.abandoned() && self.intake.owns(unusable))
        {
            work.halt(Halt::unusable(self.intake.topic(), &unusable));
        }
        match work.into_halt() {
            Some(halt) => self.halt(halt),
            None => Step::Applied(tally),
        }
    }

    fn halt(&mut self, halt: Halt) -> Step {
        self.ledger.set_unready(halt.to_string());
        self.halted = Some(halt.clone());
        Step::Halted(halt)
    }

    /// Compares the committed offsets of newly assigned partitions with the log, before the first
    /// commit would hide a loss. Answers whether that is done.
    async fn check_assigned(&mut self, stop: &CancellationToken) -> bool {
        let mut attempt = 0;
        loop {
            let partitions = self.intake.unchecked();
            if partitions.is_empty() {
                return true;
            }
            match self.intake.check_assigned(partitions).await {
                Ok(()) => continue,
                Err(error) => {
                    let reason = format!("the committed offsets could not be checked: {error}");
                    self.group.set_unready(reason);
                }
            }
            attempt += 1;
            if !self.pause(Backoff::AWAY, attempt, stop).await {
                return false;
            }
        }
    }

    /// Applies all parts of the work, in order; parts come from dividing it where an event cannot
    /// be applied.
    async fn apply_all(&mut self, work: &mut Work, stop: &CancellationToken) -> Tally {
        let mut tally = Tally::default();
        let began = Instant::now();
        let mut attempt = 0;
        work.retain(|events| self.intake.retain_owned(events));
        while let Some(part) = work.next() {
            match self.attempt(&part).await {
                Ok(outcomes) => {
                    attempt = 0;
                    tally += self.committed(&part, &outcomes, began.elapsed());
                }
                Err(error) => match error.verdict(part.len()) {
                    verdict @ (Verdict::Collision | Verdict::Away) => {
                        attempt += 1;
                        work.put_back(part);
                        if !self.retry_later(&error, verdict, attempt, stop).await {
                            work.abandon();
                        }
                        work.retain(|events| self.intake.retain_owned(events));
                    }
                    Verdict::Divide => work.divide(part),
                    Verdict::Refuse(index) => {
                        let halt = Halt::refused(self.intake.topic(), &part[index], &error);
                        work.refuse(part, index, halt);
                    }
                    Verdict::Halt => {
                        work.abandon();
                        work.halt(Halt::everything(&error));
                    }
                },
            }
        }
        if !work.abandoned() {
            // What a complaint was about is done, or another member's now.
            self.database.set_ready();
        }
        tally
    }

    async fn attempt(&mut self, events: &[Event]) -> Result<Vec<Outcome>, ApplyError> {
        let expected = if self.cautious_slices == 0 {
            Expected::New
        } else {
            Expected::Any
        };
        let topic = &self.results_topic;
        let work = slice::apply(&self.pool, ATTEMPT_MAX, topic, events, expected);
        self.intake.serve_during(work).await
    }

    fn committed(&mut self, events: &[Event], outcomes: &[Outcome], took: Duration) -> Tally {
        self.intake.commit(events);
        let tally = Tally::of(outcomes);
        self.cautious_slices = match tally.duplicate {
            0 => self.cautious_slices.saturating_sub(1),
            _ => CAUTIOUS_SLICES,
        };
        self.hint_results(events, outcomes);
        self.database.set_ready();
        metrics::slice_committed(events, outcomes, tally, took);
        debug!(events = events.len(), ?tally, ?took, "slice committed");
        for (event, outcome) in events.iter().zip(outcomes) {
            let claim = event.transaction;
            debug!(
                event_id = %event.id(), transaction_id = %claim.transaction_id,
                account_id = %claim.account_id, ?outcome, "event closed",
            );
        }
        tally
    }

    /// Tells the publisher which lanes have the result events that were written.
    fn hint_results(&self, events: &[Event], outcomes: &[Outcome]) {
        let both = events.iter().zip(outcomes);
        let lanes: LaneSet = both
            .filter(|(_, outcome)| outcome.posting().is_some())
            .map(|(event, _)| Lane::of(event.transaction.account_id))
            .collect();
        if !lanes.is_empty() {
            self.wake_up.hint(lanes);
        }
    }

    /// Waits for the next attempt; answers whether there is to be one.
    async fn retry_later(
        &mut self,
        error: &ApplyError,
        verdict: Verdict,
        attempt: u32,
        stop: &CancellationToken,
    ) -> bool {
        if verdict == Verdict::Collision {
            metrics::retried("collision");
            self.pace.collided(Instant::now());
            debug!(%error, attempt, "the slice collided with another transaction");
            return self.pause(Backoff::COLLISION, attempt, stop).await;
        }
        metrics::retried("away");
        if let ApplyError::Database(error) = error {
            metrics::acquire_failed(error);
        }
        warn!(%error, sqlstate = error.sqlstate(), attempt, "the slice is tried again");
        self.database.set_unready(error.to_string());
        self.pause(Backoff::AWAY, attempt, stop).await
    }

    async fn pause(&mut self, backoff: Backoff, attempt: u32, stop: &CancellationToken) -> bool {
        self.wait(backoff.pause(attempt, rand::random()), stop)
            .await
    }

    /// Waits, serving the group; answers whether work is to go on.
    async fn wait(&mut self, pause: Duration, stop: &CancellationToken) -> bool {
        if pause.is_zero() {
            // The timer would take up to a millisecond even so.
            return !stop.is_cancelled();
        }
        let waited = stop.run_until_cancelled(sleep(pause));
        self.intake.serve_during(waited).await.is_some()
    }
}
