//! The intake: many requests share a commit.
//!
//! A request waits in a bounded queue. A few lanes, chosen by account, each take everything that
//! waits for them and write it in one SERIALIZABLE statement. No timer is involved: a lone request
//! is written at once, a crowd shares a commit. While batches are small, the lanes take turns.

mod added;
mod answer;
mod batch;
mod failure;
mod key;
mod lane;
mod metrics;
mod queue;
mod settings;
mod sql;
mod write;

use std::{sync::Arc, time::Duration};

pub use answer::{IntakeError, Outcome, Overloaded, Refusal};
use common::{
    outbox::WakeUp,
    types::{AccountId, AmountCents, Currency, TransactionId, TransactionType},
};
use futures_util::future::select_all;
pub use key::{IdempotencyKey, InvalidIdempotencyKey};
pub use settings::IntakeSettings;
use sqlx::PgPool;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use self::{
    lane::{Lane, SmallBatches},
    queue::{Bound, Ticket, Waiting, ticket},
    write::Writer,
};

/// A payment instruction whose fields are all right in themselves.
#[derive(Clone, Debug)]
pub struct NewTransaction {
    /// The account it is posted to; whether it exists is decided when it is written.
    pub account_id: AccountId,
    /// Minor units of the currency.
    pub amount_cents: AmountCents,
    /// Must be the account's.
    pub currency: Currency,
    /// Whether the amount is added or taken.
    pub transaction_type: TransactionType,
    /// The client's name for this payment, unique for its account.
    pub idempotency_key: IdempotencyKey,
}

/// The way into the database for new transactions. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Intake {
    lanes: Arc<[mpsc::UnboundedSender<Vec<Waiting>>]>,
    bound: Bound,
    deadline: Duration,
}

impl Intake {
    /// Starts the lanes, on a runtime of the caller's choice. They end when every clone of the intake
    /// is gone and the queue is written.
    ///
    /// The pool's sessions have to be SERIALIZABLE by default, and it should hold a connection for
    /// each lane; one that says nothing for `answer_timeout` counts as dead.
    #[must_use]
    pub fn start(
        settings: &IntakeSettings,
        pool: &PgPool,
        answer_timeout: Duration,
        topic: &str,
        wake_up: &WakeUp,
        tasks: &TaskTracker,
        runtime: &Handle,
    ) -> Self {
        let bound = Bound::new(settings.intake_queue_rows_max);
        let small_batches = SmallBatches::one_at_a_time();
        let lanes = (0..settings.intake_lanes).map(|_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let writer = Writer::new(
                pool.clone(),
                answer_timeout,
                topic.to_owned(),
                wake_up.clone(),
            );
            let lane = Lane::new(
                receiver,
                bound.clone(),
                small_batches.clone(),
                writer,
                settings.intake_batch_rows_max,
            );
            tasks.spawn_on(lane.run(), runtime);
            sender
        });
        Self {
            lanes: lanes.collect(),
            bound,
            deadline: Duration::from_millis(settings.intake_deadline_ms),
        }
    }

    /// Writes one transaction and answers once it is committed, or refused.
    ///
    /// A caller that goes away before its row is taken is dropped from the queue.
    ///
    /// # Errors
    /// [`IntakeError`]: whether the transaction was written is said by the variant.
    pub async fn submit(&self, new: NewTransaction) -> Result<Outcome, IntakeError> {
        self.bound
            .enter(1)
            .map_err(|Overloaded| IntakeError::Overloaded)?;
        let now = Instant::now();
        let (lane, waiting, ticket) = self.ticket(new, now);
        self.enqueue(lane, vec![waiting]);
        await_answer(ticket, now + self.deadline).await
    }

    /// Writes many, each by itself; those of one account in the order given. The answers stand in
    /// the items' order.
    ///
    /// # Errors
    /// If the queue has no room for all of them: none was taken.
    pub async fn submit_batch(
        &self,
        items: Vec<NewTransaction>,
    ) -> Result<Vec<Result<Outcome, IntakeError>>, Overloaded> {
        self.bound.enter(items.len())?;
        let now = Instant::now();
        let mut by_lane: Vec<_> = self.lanes.iter().map(|_| Vec::new()).collect();
        let mut tickets = Vec::with_capacity(items.len());
        for item in items {
            let (lane, waiting, ticket) = self.ticket(item, now);
            by_lane[lane].push(waiting);
            tickets.push(ticket);
        }
        for (lane, rows) in by_lane.into_iter().enumerate() {
            self.enqueue(lane, rows);
        }
        let mut answers = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            answers.push(await_answer(ticket, now + self.deadline).await);
        }
        Ok(answers)
    }

    /// The row's lane, what is put into its queue, and what its caller waits with.
    fn ticket(&self, new: NewTransaction, now: Instant) -> (usize, Waiting, Ticket) {
        let lane = common::types::Lane::of(new.account_id).number();
        let lane = usize::try_from(lane).unwrap_or_default() % self.lanes.len();
        // The id is made once, here, and kept over every retry: a row found under it later was
        // written for this very request.
        let (waiting, ticket) = ticket(TransactionId::new(), now + self.wait_max(), new);
        (lane, waiting, ticket)
    }

    /// How long a row waits for the database at most: a third of its time is left to tell its caller.
    fn wait_max(&self) -> Duration {
        self.deadline * 2 / 3
    }

    /// Waits until a lane is gone, which none is before every clone of the intake is, unless it panicked.
    /// Its accounts' transactions are refused from then on.
    pub async fn lane_lost(&self) {
        let lanes = self.lanes.iter().map(|lane| Box::pin(lane.closed()));
        select_all(lanes).await;
    }

    /// Rows that come together are put into the queue together: the lane, on a thread of its own, would
    /// write the first of them alone.
    fn enqueue(&self, lane: usize, rows: Vec<Waiting>) {
        let count = rows.len();
        // A lane that is gone has dropped its receiver, and the tickets tell.
        if count > 0 && self.lanes[lane].send(rows).is_err() {
            self.bound.leave(count);
        }
    }
}

async fn await_answer(mut ticket: Ticket, deadline: Instant) -> Result<Outcome, IntakeError> {
    match timeout_at(deadline, ticket.answered()).await {
        Ok(Some(answer)) => answer,
        // The deadline passed, or the lane is gone: what matters is whether the row was taken.
        Ok(None) | Err(_) if ticket.abandon() => Err(IntakeError::NotWritten),
        Ok(None) | Err(_) => Err(IntakeError::OutcomeUnknown),
    }
}
