//! The loop that tries parked events again: each account's in their order, whichever partitions this
//! worker has.
//!
//! An account whose event could not be applied has a queue: that event at its head, and behind it all
//! that came later. When the head's time has come it is tried alone; once it went through, what waits
//! behind it is applied in slices that grow as long as all goes well. A head that failed often enough is
//! given up, and the queue goes on without it.
//!
//! The queues are rows, so a restart loses nothing, and any number of workers share them: whoever holds
//! an account's lock has its queue. Nobody waits for it, unless it is always somebody else's: slices of a
//! busy account hold its lock nearly all the time, to park more behind the queue that keeps them from
//! applying it.

mod attempt;
mod dead_letter;
mod failing;
pub mod gauge;
mod patience;
mod queue;
mod sql;

use std::time::Duration;

use attempt::{Attempt, Done, Manner};
use common::{
    db::{DatabaseSettings, bounded},
    outbox::WakeUp,
    types::DeadLetterClass,
};
use patience::{Begin, Patience};
use queue::Head;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    backoff::Backoff,
    config::{Config, FailureSettings, KafkaSettings},
    failure::Failures,
    health::Side,
    metrics::{self, Tally},
    slice::{ApplyError, forget_statements},
};

/// Most connections of this loop. It uses one at a time; but a pool asks a connection that comes back
/// whether it lives, without a limit, and one whose line goes silent at that moment keeps its place until
/// TCP gives up. The other goes on meanwhile.
const CONNECTIONS_MAX: u32 = 2;
/// How long one attempt may take before its connection counts as dead, as a slice's.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// How many due heads are looked at, at least: others may hold the accounts of the first ones.
const LOOK_MIN: i64 = 64;
/// How many full slices are taken at once from a queue whose account had to be waited for: slices and
/// retries take turns there, and each slice parks at most one, so the queue comes to its end.
const SLICES_PER_TURN: i64 = 4;
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

impl Step {
    /// Whether it came to nothing, and not by its head's own fault.
    const fn is_in_vain(self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Collided | Self::Away | Self::StandingStill
        )
    }
}

/// One worker's part in trying parked events again.
pub struct Retries {
    /// Its own, so that retries never wait for a connection that slices have, or take theirs.
    pool: PgPool,
    settings: FailureSettings,
    kafka: KafkaSettings,
    slice_events_max: i64,
    wake_up: WakeUp,
    database: Side,
    failures: Failures,
    /// How many events are tried together next.
    ambition: i64,
    /// The last step was in vain: the next one begins with any of the due heads, so that the first of
    /// them does not keep the others.
    begins_anywhere: bool,
    patience: Patience,
    /// This loop said that it cannot go on.
    stands_still: bool,
}

impl Retries {
    /// With database connections of its own.
    #[must_use]
    pub fn new(config: &Config, wake_up: WakeUp, database: Side, failures: Failures) -> Self {
        let own = DatabaseSettings {
            database_connections_max: CONNECTIONS_MAX,
            ..config.database.clone()
        };
        Self {
            pool: own.pool(config.session()),
            settings: config.failures,
            kafka: config.kafka.clone(),
            slice_events_max: i64::from(config.slices.slice_events_max),
            wake_up,
            database,
            failures,
            ambition: 1,
            begins_anywhere: false,
            patience: Patience::default(),
            stands_still: false,
        }
    }

    /// The connections of this loop.
    #[must_use]
    pub fn pool(&self) -> PgPool {
        self.pool.clone()
    }

    /// Tries parked events until the stop token. A step that has begun comes to its end.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut in_vain = 0;
        while !stop.is_cancelled() {
            let backoff = match self.step().await {
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
        let step = match self.attempt(is_probe).await {
            Ok(step) => {
                self.database.set_ready();
                step
            }
            Err(error) => self.gave_no_answer(&error),
        };
        self.begins_anywhere = step.is_in_vain();
        step
    }

    async fn attempt(&mut self, is_probe: bool) -> Result<Step, ApplyError> {
        if is_probe {
            self.ambition = 1;
        }
        let heads = self.look().await?;
        if heads.is_empty() {
            return self.found_nothing_due().await;
        }
        let first = if self.begins_anywhere {
            rand::random_range(0..heads.len())
        } else {
            0
        };
        let begin = Begin {
            account: heads[first].account,
            is_longest_due: first == 0,
        };
        let manner = self.patience.manner(begin.account);
        let attempt = self.try_heads(&heads[first..], manner).await?;
        self.patience.learn(manner, begin, attempt.first());
        match attempt {
            Attempt::Busy => Ok(Step::Busy),
            Attempt::Done(done) => Ok(self.moved(&done)),
            Attempt::WithoutRow { events } => self.found_no_row(&events, is_probe).await,
            Attempt::Failed { events, error } => self.failed(&events, error, is_probe).await,
        }
    }

    /// Nothing is left that could not be done.
    async fn found_nothing_due(&mut self) -> Result<Step, ApplyError> {
        self.goes_on();
        let next_due = self.next_due().await?;
        if next_due.is_none() {
            self.failures.nothing_is_parked();
        }
        Ok(Step::Idle(next_due))
    }

    async fn try_heads(&self, heads: &[Head], manner: Manner) -> Result<Attempt, ApplyError> {
        let (kafka, events_max) = (&self.kafka, self.events_max(manner));
        self.work(async |connection| {
            let attempt = attempt::attempt(connection, kafka, heads, events_max, manner).await?;
            if let Attempt::Failed { error, .. } = &attempt {
                forget_statements(connection, Some(error)).await;
            }
            Ok(attempt)
        })
        .await
    }

    /// Works on one of this loop's connections, within the limit of an attempt.
    async fn work<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, ApplyError>,
    ) -> Result<T, ApplyError> {
        bounded(&self.pool, ATTEMPT_MAX, async |connection| {
            let done = work(connection).await;
            forget_statements(connection, done.as_ref().err()).await;
            done
        })
        .await
    }

    /// How many events an attempt takes.
    fn events_max(&self, manner: Manner) -> i64 {
        match manner {
            Manner::PassBy => self.ambition.min(self.slice_events_max),
            Manner::Wait => self.ambition,
        }
    }

    async fn look(&self) -> Result<Vec<Head>, ApplyError> {
        let heads_max = self
            .ambition
            .clamp(LOOK_MIN, self.slice_events_max.max(LOOK_MIN));
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
        self.work(async |connection| {
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
        let most = self.slice_events_max.saturating_mul(SLICES_PER_TURN);
        self.ambition = self.ambition.saturating_mul(2).min(most);
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
}
