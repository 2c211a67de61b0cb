//! Writing a batch until each of its rows has an answer.

use std::{
    mem,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use chrono::Utc;
use common::{
    db::{ErrorClass, bounded},
    faults::{Mutation, mutated, point},
    outbox::WakeUp,
};
use sqlx::{Error, PgPool};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, error};

use super::{
    IntakeError, Outcome, Refusal,
    added::Added,
    batch::{Group, as_created, decide, group, unless_uncertain},
    failure::{Failure, backoff, leaves_outcome_unknown, unless_written},
    metrics,
    queue::Row,
    sql::{self, Inserted, Written},
};

/// Attempts at one batch, the first included, before it is halved (a collision) or given up (the
/// database is away).
const ATTEMPTS_MAX: u32 = 8;

/// How long before the write the mutation answers: long enough for the answers to reach their clients.
const ANSWERED_TOO_EARLY_BY: Duration = Duration::from_millis(50);

/// After a key turned out to be stored, so many batches are written by the statement that looks for
/// stored keys: repeats come in crowds, after an outage for instance.
const CAUTIOUS_BATCHES: u32 = 16;

/// Writes one lane's batches over a pool of SERIALIZABLE sessions.
pub(super) struct Writer {
    pool: PgPool,
    answer_timeout: Duration,
    topic: String,
    wake_up: WakeUp,
    /// For how many more batches a key is expected to be stored.
    cautious_batches: u32,
}

/// What is expected of a batch's keys, which decides by which statement it is written. A wrong guess
/// costs a second statement and changes no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    New,
    MayBeStored,
}

/// Rows for one statement.
struct Batch {
    groups: Vec<Group>,
    keys: Keys,
    /// An earlier attempt at these rows may have been committed without our learning it.
    may_be_written: bool,
}

impl Batch {
    /// When to stop waiting for a connection, so that the callers are still told that nothing of theirs
    /// was written; never where that is not certain. The first row is the oldest.
    fn wait_until(&self) -> Option<Instant> {
        let oldest = self.groups.first()?;
        (!self.may_be_written).then_some(oldest.first.wait_until)
    }
}

/// A batch's statement that was committed.
enum Committed {
    New(Inserted),
    Looked(Vec<Written>),
}

/// One attempt that failed, and whether its statement had been sent.
struct Attempted {
    error: Error,
    sent: bool,
}

impl Writer {
    /// A database that says nothing for longer than `answer_timeout` counts as away; the server's
    /// own statement timeout comes first where the server is there.
    pub(super) fn new(
        pool: PgPool,
        answer_timeout: Duration,
        topic: String,
        wake_up: WakeUp,
    ) -> Self {
        Self {
            pool,
            answer_timeout,
            topic,
            wake_up,
            cautious_batches: 0,
        }
    }

    /// Writes the rows and answers each of them.
    pub(super) async fn write(&mut self, mut rows: Vec<Row>) {
        while !rows.is_empty() {
            let (mut groups, rest) = group(rows);
            if mutated(Mutation::AnswerBeforeCommit) {
                answer_too_early(&mut groups).await;
            }
            let batch = Batch {
                groups,
                keys: self.expected_keys(),
                may_be_written: false,
            };
            self.write_batch(batch).await;
            rows = rest;
        }
    }

    fn expected_keys(&mut self) -> Keys {
        match self.cautious_batches.checked_sub(1) {
            None => Keys::New,
            Some(left) => {
                self.cautious_batches = left;
                Keys::MayBeStored
            }
        }
    }

    /// What fails as a batch is halved, so that one bad row never fails its neighbours; the first
    /// half goes first, which keeps the order.
    async fn write_batch(&mut self, batch: Batch) {
        let mut batches = vec![batch];
        while let Some(mut batch) = batches.pop() {
            match self.attempt(&mut batch).await {
                Ok(Committed::New(inserted)) => batches.extend(self.settle_new(batch, &inserted)),
                Ok(Committed::Looked(written)) => self.settle(batch, &written),
                Err(Failure::GiveUp(answer)) => fail(batch.groups, answer),
                Err(Failure::Divide(_)) if batch.keys == Keys::New => {
                    // Most probably a key is stored.
                    self.cautious_batches = CAUTIOUS_BATCHES;
                    let keys = Keys::MayBeStored;
                    batches.push(Batch { keys, ..batch });
                }
                Err(Failure::Divide(error)) if batch.groups.len() == 1 => {
                    let row = &batch.groups[0].first;
                    error!(error = &error as &dyn std::error::Error, transaction_id = %row.id,
                        account_id = %row.new.account_id, "the database refused a transaction");
                    let answer = unless_written(IntakeError::Failed, batch.may_be_written);
                    fail(batch.groups, answer);
                }
                Err(Failure::Divide(_)) => {
                    let groups = batch.groups.split_off(batch.groups.len() / 2);
                    batches.push(Batch { groups, ..batch });
                    batches.push(batch);
                }
            }
        }
    }

    /// Answers the rows that were inserted. Those that were not are a batch again: a key that is
    /// stored is answered from what is stored, whatever its account is now.
    fn settle_new(&self, mut batch: Batch, inserted: &Inserted) -> Option<Batch> {
        let (mut added, mut left_over) = (Added::default(), Vec::new());
        for (position, group) in (1..).zip(mem::take(&mut batch.groups)) {
            if inserted.left_over.contains(&position) {
                left_over.push(group);
            } else {
                added.add(&group.first.new);
                let transaction = as_created(&group.first, inserted.now);
                group.answer(Ok(Outcome::Created(transaction)));
            }
        }
        self.announce(added);
        (!left_over.is_empty()).then_some(Batch {
            groups: left_over,
            keys: Keys::MayBeStored,
            ..batch
        })
    }

    /// Answers a batch of which each row was looked up.
    fn settle(&mut self, batch: Batch, written: &[Written]) {
        let mut added = Added::default();
        for (group, written) in batch.groups.into_iter().zip(written) {
            let outcome = decide(&group.first, written);
            match &outcome {
                Outcome::Created(_) => added.add(&group.first.new),
                Outcome::Replayed(_) | Outcome::Refused(Refusal::KeyReused) => {
                    self.cautious_batches = CAUTIOUS_BATCHES;
                }
                Outcome::Refused(_) => {}
            }
            group.answer(unless_uncertain(outcome, batch.may_be_written));
        }
        self.announce(added);
    }

    fn announce(&self, added: Added) {
        let lanes = added.count();
        if !lanes.is_empty() {
            self.wake_up.hint(lanes);
        }
    }

    /// Runs the statement until it is committed or has failed for good.
    async fn attempt(&self, batch: &mut Batch) -> Result<Committed, Failure> {
        let rows = batch.groups.len();
        let mut attempt = 1;
        loop {
            let Attempted { error, sent } = match self.attempt_once(batch).await {
                Ok(committed) => return Ok(committed),
                Err(attempted) => attempted,
            };
            batch.may_be_written |= sent && leaves_outcome_unknown(&error);
            let too_late = !sent && batch.wait_until().is_some_and(|at| at <= Instant::now());
            let passes = ErrorClass::of(&error) == ErrorClass::Transient;
            if attempt == ATTEMPTS_MAX || too_late || !passes {
                return Err(Failure::of(error, rows, batch.may_be_written));
            }
            metrics::batch_retried(ErrorClass::Transient.as_str());
            debug!(%error, attempt, rows, "a batch is tried again");
            sleep(backoff(attempt)).await;
            attempt += 1;
        }
    }

    async fn attempt_once(&self, batch: &Batch) -> Result<Committed, Attempted> {
        let rows: Vec<&Row> = batch.groups.iter().map(|group| &group.first).collect();
        let sent = AtomicBool::new(false);
        point("api.before_write");
        let limit = self.answer_timeout;
        let writing = bounded(&self.pool, limit, async |connection| {
            sent.store(true, Ordering::Relaxed);
            Ok(match batch.keys {
                Keys::New => Committed::New(sql::insert_new(connection, &self.topic, &rows).await?),
                Keys::MayBeStored => {
                    Committed::Looked(sql::accept(connection, &self.topic, &rows).await?)
                }
            })
        });
        let written = match batch.wait_until() {
            Some(at) => unless_unsent(writing, at, &sent).await,
            None => writing.await,
        };
        let committed = written.map_err(|error| {
            metrics::attempt_failed(&error);
            let sent = sent.load(Ordering::Relaxed);
            Attempted { error, sent }
        })?;
        point("api.after_commit");
        metrics::batch_written(rows.len());
        Ok(committed)
    }
}

/// Breaks promise 1, for the fault suite: the answers have left before the rows are written.
async fn answer_too_early(groups: &mut [Group]) {
    for Group { first, .. } in groups {
        let transaction = as_created(first, Utc::now());
        first.answer_too_early(Ok(Outcome::Created(transaction)));
    }
    sleep(ANSWERED_TOO_EARLY_BY).await;
}

/// Runs an attempt, unless it still waits for a connection at that time: then it is dropped, and nothing
/// of it was sent.
async fn unless_unsent<T>(
    attempt: impl Future<Output = Result<T, Error>>,
    at: Instant,
    sent: &AtomicBool,
) -> Result<T, Error> {
    let mut attempt = pin!(attempt);
    match timeout_at(at, &mut attempt).await {
        Ok(ended) => ended,
        Err(_) if sent.load(Ordering::Relaxed) => attempt.await,
        Err(_) => Err(Error::PoolTimedOut),
    }
}

fn fail(groups: Vec<Group>, error: IntakeError) {
    for group in groups {
        group.answer(Err(error));
    }
}
