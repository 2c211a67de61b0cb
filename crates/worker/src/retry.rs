//! The loop that tries parked events again: each account's in their order, whichever partitions this
//! worker has.
//!
//! An account whose event could not be applied has a queue: that event at its head, and behind it all
//! that came later. When the head's time has come it is tried alone; once it went through, what waits
//! behind it is applied in slices that grow as long as all goes well. A head that failed often enough is
//! given up, and the queue goes on without it.
//!
//! The queues are rows, so a restart loses nothing, and any number of workers share them: whoever holds
//! an account's lock has its queue, and nobody waits for it.

mod attempt;
mod dead_letter;
pub mod gauge;
mod queue;
mod sql;

use std::time::Duration;

use attempt::{Attempt, Done, Topics};
use common::{
    db::{DatabaseSettings, bounded},
    outbox::WakeUp,
    types::{DeadLetterClass, DeadLetterStage, Lane},
};
pub use dead_letter::Buried;
use dead_letter::Cause;
pub use queue::Removed;
use queue::{Head, Parked};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{
    backoff::Backoff,
    config::{Config, FailureSettings},
    failure::{self, Class, Failures},
    health::Side,
    metrics::{self, Tally},
    slice::ApplyError,
};

/// How long one attempt may take before its connection counts as dead, as a slice's.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// How many due heads are looked at, at least: others may hold the accounts of the first ones.
const LOOK_MIN: i64 = 64;
/// How long it is waited at most before heads are looked for again: other workers park events, too.
const POLL: Duration = Duration::from_secs(1);

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// No head is due; the next one will be so long from now, if there is any.
    Idle(Option<Duration>),
    /// Heads are due, and others hold their accounts.
    Busy,
    /// Events left their queues.
    Moved(Tally),
    /// One of several events cannot be applied: the first of them is tried alone next.
    Divided,
    /// A head failed once more, and has a new due time.
    Failed,
    /// A head failed for the last time, and is a dead letter.
    GaveUp,
    /// It collided with another transaction, and nothing is counted.
    Collided,
    /// The database is away or busy, and nothing is counted.
    Away,
    /// Something is wrong with the system, and nothing is counted or given up.
    StandingStill,
}

/// One worker's part in trying parked events again.
pub struct Retries {
    /// Of one connection, so that retries never wait for one that slices have, or take theirs.
    pool: PgPool,
    settings: FailureSettings,
    topics: Topics,
    slice_events_max: i64,
    wake_up: WakeUp,
    database: Side,
    failures: Failures,
    /// How many events are tried together next.
    ambition: i64,
    /// This loop said that it cannot go on.
    stands_still: bool,
}

impl Retries {
    /// With a database connection of its own.
    #[must_use]
    pub fn new(config: &Config, wake_up: WakeUp, database: Side, failures: Failures) -> Self {
        let one = DatabaseSettings {
            database_connections_max: 1,
            ..config.database.clone()
        };
        Self {
            pool: one.pool(config.session()),
            settings: config.failures,
            topics: Topics::of(config),
            slice_events_max: i64::from(config.slices.slice_events_max),
            wake_up,
            database,
            failures,
            ambition: 1,
            stands_still: false,
        }
    }

    /// Tries parked events until the stop token. A step that has begun comes to its end.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut in_vain = 0;
        while !stop.is_cancelled() {
            let step = self.step().await;
            let backoff = match step {
                Step::Moved(_) | Step::Divided | Step::Failed | Step::GaveUp => {
                    in_vain = 0;
                    continue;
                }
                Step::Idle(next_due) => {
                    in_vain = 0;
                    self.wait_for_work(next_due, &stop).await;
                    continue;
                }
                Step::Busy | Step::Collided => Backoff::COLLISION,
                Step::Away => Backoff::AWAY,
                Step::StandingStill => Backoff::MENDING,
            };
            in_vain += 1;
            let pause = sleep(backoff.pause(in_vain, rand::random()));
            stop.run_until_cancelled(pause).await;
        }
    }

    /// Waits until the next head is due, an event is parked here, or it is time to look again.
    async fn wait_for_work(&self, next_due: Option<Duration>, stop: &CancellationToken) {
        let due = next_due.map_or(POLL, |next| next.min(POLL));
        // The database's timer and ours differ: a look too early would be followed by many.
        let due = sleep(due.max(Duration::from_millis(1)));
        let waiting = async {
            tokio::select! {
                () = due => {}
                () = self.failures.something_parked() => {}
            }
        };
        stop.run_until_cancelled(waiting).await;
    }

    /// Tries what is due: one head, or as many events as went well lately.
    ///
    /// While something is wrong with the system, one head is tried, uncounted, to see whether it is
    /// mended; and none while it is for the loop of slices to find out.
    pub async fn step(&mut self) -> Step {
        let is_probe = self.failures.systemic().is_some();
        if is_probe && !self.failures.may_probe() {
            return Step::StandingStill;
        }
        let tried = self.attempt(is_probe).await;
        match tried {
            Ok(step) => {
                self.database.set_ready();
                step
            }
            Err(error) => self.gave_no_answer(&error).await,
        }
    }

    async fn attempt(&mut self, is_probe: bool) -> Result<Step, ApplyError> {
        if is_probe {
            self.ambition = 1;
        }
        let heads = self.look().await?;
        if heads.is_empty() {
            // Nothing is left that could not be done.
            self.goes_on();
            return Ok(Step::Idle(self.next_due().await?));
        }
        // A probe is any of them: the first may be one that cannot be applied, whatever is mended.
        let first = if is_probe {
            rand::random_range(0..heads.len())
        } else {
            0
        };
        let (topics, ambition) = (&self.topics, self.ambition);
        let attempt = bounded(&self.pool, ATTEMPT_MAX, async |connection| {
            attempt::attempt(connection, topics, &heads[first..], ambition).await
        });
        match attempt.await? {
            Attempt::Busy => Ok(Step::Busy),
            Attempt::Done(done) => Ok(self.moved(&done)),
            Attempt::Failed { events, error } => self.failed(&events, error, is_probe).await,
        }
    }

    async fn look(&self) -> Result<Vec<Head>, ApplyError> {
        let heads_max = self.ambition.max(LOOK_MIN);
        self.read(async |connection| sql::due_heads(connection, heads_max).await)
            .await
    }

    async fn next_due(&self) -> Result<Option<Duration>, ApplyError> {
        self.read(async |connection| sql::next_due(connection).await)
            .await
    }

    /// Reads outside of any posting transaction: under SERIALIZABLE it would lock what it looks at.
    async fn read<T>(
        &self,
        query: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, ApplyError> {
        bounded(&self.pool, ATTEMPT_MAX, async |connection| {
            let mut transaction = connection
                .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
                .await?;
            let found = query(&mut transaction).await?;
            transaction.commit().await?;
            Ok(found)
        })
        .await
    }

    fn moved(&mut self, done: &Done) -> Step {
        self.goes_on();
        self.failures.posted();
        self.ambition = self.ambition.saturating_mul(2).min(self.slice_events_max);
        self.wake_up.hint(done.lanes());
        metrics::retries_committed(done.retries, &done.ended);
        metrics::dead_lettered(DeadLetterClass::Rejected, done.copies);
        for (claim, posting, _) in &done.ended {
            debug!(
                transaction_id = %claim.transaction_id, account_id = %claim.account_id, ?posting,
                "parked event closed",
            );
        }
        Step::Moved(done.tally())
    }

    /// Something of what was tried together failed.
    async fn failed(
        &mut self,
        events: &[Parked],
        error: ApplyError,
        is_probe: bool,
    ) -> Result<Step, ApplyError> {
        let class = failure::classify(&error);
        let (head, is_alone) = match events {
            [head] => (head, true),
            [head, ..] => (head, false),
            [] => return Err(error),
        };
        match class {
            Class::OfOneEvent | Class::TooLong if !is_alone => {
                self.ambition = 1;
                Ok(Step::Divided)
            }
            Class::OfOneEvent => self.head_failed(head, &error, is_probe).await,
            Class::Collision | Class::Away | Class::TooLong | Class::Systemic => Err(error),
        }
    }

    /// A head failed alone, by itself.
    async fn head_failed(
        &mut self,
        head: &Parked,
        error: &ApplyError,
        is_probe: bool,
    ) -> Result<Step, ApplyError> {
        // What kept this loop from going on is mended: it failed with this head alone.
        self.goes_on();
        if is_probe
            || self
                .failures
                .failed(head.account, &failure::signature(error))
        {
            return Ok(Step::StandingStill);
        }
        let message = failure::describe(error);
        let mismatch = matches!(error, ApplyError::Inapplicable { .. });
        let retries_max = i32::try_from(self.settings.retries_max).unwrap_or(i32::MAX);
        // The first attempt is no retry.
        if mismatch || head.attempts >= retries_max {
            return self.give_up(head, &message, mismatch).await;
        }
        let attempts = head.attempts.saturating_add(1);
        let backoff = self.settings.backoff();
        let pause = backoff.pause(attempts.unsigned_abs(), rand::random());
        let written = bounded(&self.pool, ATTEMPT_MAX, async |connection| {
            attempt::record_failure(connection, head, pause, &message).await
        });
        if !written.await? {
            return Ok(Step::Busy);
        }
        metrics::retried_parked(usize::from(head.attempts > 0));
        warn!(
            event_id = %head.event, account_id = %head.account, attempts, ?pause, error = message,
            "a parked event failed again; it is tried again after the pause"
        );
        Ok(Step::Failed)
    }

    async fn give_up(
        &mut self,
        head: &Parked,
        message: &str,
        mismatch: bool,
    ) -> Result<Step, ApplyError> {
        let cause = if mismatch {
            Cause {
                class: DeadLetterClass::Mismatch,
                stage: DeadLetterStage::Compare,
                message,
                has_transaction: false,
            }
        } else {
            Cause {
                class: DeadLetterClass::RetriesExhausted,
                stage: DeadLetterStage::Apply,
                message,
                has_transaction: true,
            }
        };
        let topic = &self.topics.dead_letters;
        let letter = bounded(&self.pool, ATTEMPT_MAX, async |connection| {
            dead_letter::bury(connection, topic, head, cause).await
        });
        let Some(letter) = letter.await? else {
            return Ok(Step::Busy);
        };
        self.wake_up
            .hint(std::iter::once(Lane::of(head.account)).collect());
        metrics::retried_parked(usize::from(head.attempts > 0));
        metrics::dead_lettered(cause.class, 1);
        error!(
            dead_letter_id = %letter, event_id = %head.event, account_id = %head.account,
            attempts = head.attempts.saturating_add(1), class = cause.class.as_str(),
            error = message, "an event was given up: it is a dead letter, its transaction waits"
        );
        Ok(Step::GaveUp)
    }

    /// Neither events nor their failure could be written down.
    async fn gave_no_answer(&mut self, error: &ApplyError) -> Step {
        match failure::classify(error) {
            Class::Collision => {
                self.ambition = (self.ambition / 2).max(1);
                debug!(%error, "retries collided with another transaction");
                Step::Collided
            }
            Class::Away | Class::TooLong => {
                if let ApplyError::Database(error) = error {
                    metrics::acquire_failed(error);
                }
                warn!(%error, sqlstate = error.sqlstate(), "parked events are tried again later");
                self.ambition = 1;
                self.database.set_unready(error.to_string());
                Step::Away
            }
            // An event that fails in itself has its own way; here its failure could not be written
            // down, and it has no place left to go.
            Class::Systemic | Class::OfOneEvent => {
                self.database.set_ready();
                self.ambition = 1;
                self.stands_still = true;
                self.failures.stand_still(&failure::describe(error));
                self.hang_up().await;
                Step::StandingStill
            }
        }
    }

    /// Takes back what this loop complained of, if it did.
    fn goes_on(&mut self) {
        if std::mem::take(&mut self.stands_still) {
            self.failures.mended();
        }
    }

    /// Closes the connection: its prepared statements may remember what has been mended since.
    async fn hang_up(&self) {
        if let Some(connection) = self.pool.try_acquire() {
            // What cannot be closed is closed by the other side.
            let _ = connection.close().await;
        }
    }
}
