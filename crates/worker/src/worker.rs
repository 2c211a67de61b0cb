//! The loop from the topic to the ledger.

mod attempt;
mod halt;
mod pace;
mod setback;
mod work;

use std::time::{Duration, Instant};

use common::{
    admin::{Component, Readiness},
    faults,
    outbox::WakeUp,
    types::{Lane, LaneSet},
};
pub use halt::Halt;
use pace::Pace;
use rdkafka::error::KafkaResult;
use setback::{Before, Setback};
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use work::Work;

use crate::{
    backoff::Backoff,
    config::{Config, KafkaSettings},
    consume::Intake,
    event::Item,
    failure::Failures,
    health::Side,
    metrics::{self, Tally},
    slice::{ApplyError, Outcome},
};

/// After a repeat, so many slices are expected to have some, too: they come in crowds, behind a
/// restart for instance.
const CAUTIOUS_SLICES: u32 = 16;

/// What one step did.
#[derive(Debug)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// A slice was worked off, and its offsets are on their way.
    Applied {
        /// What became of its records.
        tally: Tally,
        /// How long to pause before the next.
        pause: Duration,
    },
    /// The consumer brings nothing any more.
    Halted(Halt),
}

/// One member of the group: it works off what its partitions bring, slice by slice.
pub struct Worker {
    intake: Intake,
    pool: PgPool,
    kafka: KafkaSettings,
    retry_pauses: Backoff,
    wake_up: WakeUp,
    database: Side,
    group: Component,
    failures: Failures,
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
        failures: Failures,
        readiness: &Readiness,
    ) -> KafkaResult<Self> {
        let intake = Intake::join(&config.kafka, config.slices.slice_events_max)?;
        let group = readiness.component("group");
        Ok(Self {
            intake,
            pool,
            kafka: config.kafka.clone(),
            retry_pauses: config.failures.retry_pauses(),
            wake_up,
            database,
            group,
            failures,
            pace: Pace::new(config.slices.slice_events_max),
            cautious_slices: 0,
            halted: None,
        })
    }

    /// Works until the stop token, then leaves the group.
    ///
    /// A worker that halted stays until it is told to end, so that somebody sees why.
    pub async fn run(mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.step(stop).await {
                Step::Idle => {}
                Step::Applied { pause, .. } => {
                    self.wait(pause, stop).await;
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

    /// Works off what waits, as one slice. Nothing is skipped: each record is applied, recognised as a
    /// repeat, parked or made a dead letter before its offset is committed.
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
        let items = collected.items;
        if items.is_empty() {
            return Step::Idle;
        }
        let settles = self.pace.settles(items.len(), Instant::now());
        self.wait(settles, stop).await;
        let began = Instant::now();
        let tally = self.work_off(Work::new(items), stop).await;
        let pause = self.pace.pause(tally.records(), began.elapsed());
        // What it settled for counts as time from slice to slice.
        let pause = pause.saturating_sub(settles);
        Step::Applied { tally, pause }
    }

    fn halt(&mut self, halt: Halt) -> Step {
        self.failures.stand_still(&halt.to_string());
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

    /// Works off all parts of the work, in order; parts come from dividing it where an event fails by
    /// itself, or the whole takes too long or collides too often.
    async fn work_off(&mut self, mut work: Work, stop: &CancellationToken) -> Tally {
        let mut tally = Tally::default();
        let began = Instant::now();
        let (mut attempt, mut before) = (0, Before::default());
        work.retain(|items| self.intake.retain_owned(items));
        while let Some(part) = work.next() {
            match self.attempt(&part, work.is_suspect()).await {
                Ok(outcomes) => {
                    (attempt, before) = (0, Before::default());
                    tally += self.committed(&part, &outcomes, began.elapsed());
                }
                Err(setback) => {
                    let setback = setback.behind(before, part.len());
                    before = before.and(&setback);
                    attempt = match setback {
                        Setback::OneOfMany => 0,
                        _ => attempt + 1,
                    };
                    if setback.is_of_records() {
                        work.suspect();
                    }
                    if setback.divides() {
                        work.divide(part);
                    } else {
                        work.put_back(part);
                    }
                    if !self.retry_later(&setback, attempt, stop).await {
                        work.abandon();
                    }
                    work.retain(|items| self.intake.retain_owned(items));
                }
            }
        }
        if !work.abandoned() {
            // What a complaint was about is done, or another member's now.
            self.database.set_ready();
            self.failures.moved_on();
        }
        tally
    }

    fn committed(&mut self, items: &[Item], outcomes: &[Outcome], took: Duration) -> Tally {
        faults::point("worker.before_offsets");
        self.intake.commit(items);
        faults::point("worker.after_offsets");
        let tally = Tally::of(outcomes);
        self.cautious_slices = match tally.duplicate {
            0 => self.cautious_slices.saturating_sub(1),
            _ => CAUTIOUS_SLICES,
        };
        self.hint(items, outcomes);
        self.database.set_ready();
        if tally.ended() > 0 {
            self.failures.posted();
        }
        self.failures.moved_on();
        metrics::slice_committed(items, outcomes, tally, took);
        debug!(records = items.len(), ?tally, ?took, "slice committed");
        for (item, outcome) in items.iter().zip(outcomes) {
            debug!(
                event_id = item.event_id().map(tracing::field::display),
                account_id = %item.account_id(), ?outcome, "record worked off",
            );
        }
        tally
    }

    /// Tells the publisher which lanes have the result events and the dead letters that were written.
    fn hint(&self, items: &[Item], outcomes: &[Outcome]) {
        let both = items.iter().zip(outcomes);
        let lanes: LaneSet = both
            .filter(|(_, outcome)| outcome.posting().is_some() || outcome.is_dead())
            .map(|(item, _)| Lane::of(item.account_id()))
            .collect();
        if !lanes.is_empty() {
            self.wake_up.hint(lanes);
        }
    }

    /// Waits for the next attempt; answers whether there is to be one.
    async fn retry_later(
        &mut self,
        setback: &Setback,
        attempt: u32,
        stop: &CancellationToken,
    ) -> bool {
        metrics::retried(setback.as_str());
        match setback {
            Setback::OneOfMany => !stop.is_cancelled(),
            Setback::Collision(error) | Setback::Crowded(error) => {
                self.pace.collided(Instant::now());
                debug!(%error, attempt, "the slice collided with another transaction");
                self.pause(Backoff::COLLISION, attempt, stop).await
            }
            Setback::Away(error) | Setback::TooLong(error) | Setback::Alone(error) => {
                if let ApplyError::Database(error) = error {
                    metrics::acquire_failed(error);
                }
                warn!(%error, sqlstate = error.sqlstate(), attempt, "the slice is tried again");
                self.database.set_unready(error.to_string());
                self.pause(Backoff::AWAY, attempt, stop).await
            }
            Setback::Systemic(reason) => {
                self.failures.hold_back(reason.as_deref());
                self.pause(Backoff::MENDING, attempt, stop).await
            }
        }
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
