//! The queue's bound, and the two halves of a request in it: what waits and what is waited on.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use common::types::TransactionId;
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use super::{IntakeError, NewTransaction, Outcome, Overloaded};

/// What a request is told in the end.
pub(super) type Answer = Result<Outcome, IntakeError>;

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

/// How many rows may wait over all lanes.
#[derive(Clone, Debug)]
pub(super) struct Bound(Arc<Semaphore>);

impl Bound {
    pub(super) fn new(rows_max: u32) -> Self {
        Self(Arc::new(Semaphore::new(rows_max as usize)))
    }

    /// Makes room for so many rows, or for none of them.
    pub(super) fn enter(&self, rows: usize) -> Result<(), Overloaded> {
        let rows = u32::try_from(rows).map_err(|_| Overloaded)?;
        self.0
            .try_acquire_many(rows)
            .map_err(|_| Overloaded)?
            .forget();
        super::metrics::queue_depth().increment(f64::from(rows));
        Ok(())
    }

    /// Gives the room of so many rows back: they left the queue.
    pub(super) fn leave(&self, rows: usize) {
        self.0.add_permits(rows);
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        super::metrics::queue_depth().decrement(f64::from(rows));
    }
}

/// Who has a row: its caller, who may still go away, or a lane, which then finishes it.
#[derive(Debug)]
struct Hold(AtomicU8);

impl Hold {
    fn pass_to(&self, state: u8) -> bool {
        self.0
            .compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// A row in the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    row: Row,
    hold: Arc<Hold>,
}

/// A row that a lane has taken: it is written, whether its caller still waits or not.
#[derive(Debug)]
pub(super) struct Row {
    /// Made once for this request.
    pub(super) id: TransactionId,
    pub(super) new: NewTransaction,
    /// Until when a lane waits for the database, of which a caller is to hear in time.
    pub(super) wait_until: Instant,
    answer: oneshot::Sender<Answer>,
}

/// The caller's half.
#[derive(Debug)]
pub(super) struct Ticket {
    answer: oneshot::Receiver<Answer>,
    hold: Arc<Hold>,
}

/// A row to put into the queue, and the ticket for its answer.
pub(super) fn ticket(
    id: TransactionId,
    wait_until: Instant,
    new: NewTransaction,
) -> (Waiting, Ticket) {
    let (sender, receiver) = oneshot::channel();
    let hold = Arc::new(Hold(AtomicU8::new(WAITING)));
    let row = Row {
        id,
        new,
        wait_until,
        answer: sender,
    };
    (
        Waiting {
            row,
            hold: Arc::clone(&hold),
        },
        Ticket {
            answer: receiver,
            hold,
        },
    )
}

impl Waiting {
    /// Takes the row, unless its caller has gone away.
    pub(super) fn take(self) -> Option<Row> {
        self.hold.pass_to(TAKEN).then_some(self.row)
    }
}

impl Row {
    /// Tells the caller; one that has gone away is not missed.
    pub(super) fn answer(self, answer: Answer) {
        let _caller_gone = self.answer.send(answer);
    }

    /// Tells the caller before the row is written, which no rule allows: for the mutation
    /// [`common::faults::Mutation::AnswerBeforeCommit`]. What is answered later is heard by nobody.
    pub(super) fn answer_too_early(&mut self, answer: Answer) {
        let (nobody, _) = oneshot::channel();
        let _caller_gone = mem::replace(&mut self.answer, nobody).send(answer);
    }
}

impl Ticket {
    /// Waits for the answer; none if the lane is gone.
    pub(super) async fn answered(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }

    /// Takes the row back, if no lane has taken it: then it is certain that it is never written.
    pub(super) fn abandon(&self) -> bool {
        self.hold.pass_to(ABANDONED)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::batch::tests::new_transaction;

    #[test]
    fn a_batch_that_does_not_fit_takes_no_room() {
        let bound = Bound::new(3);
        assert_eq!(bound.enter(4), Err(Overloaded));
        assert_eq!(bound.enter(3), Ok(()));
        assert_eq!(bound.enter(1), Err(Overloaded));
        bound.leave(1);
        assert_eq!(bound.enter(1), Ok(()));
    }

    #[test]
    fn a_caller_that_goes_away_first_leaves_nothing_to_write() {
        let (waiting, ticket) = ticket(TransactionId::new(), Instant::now(), new_transaction("k"));
        drop(ticket);
        assert!(waiting.take().is_none());
    }

    #[test]
    fn a_row_that_was_taken_cannot_be_taken_back() {
        let (waiting, ticket) = ticket(TransactionId::new(), Instant::now(), new_transaction("k"));
        let row = waiting.take();
        assert!(row.is_some());
        assert!(!ticket.abandon());
    }

    #[tokio::test]
    async fn a_lane_that_ends_tells_its_callers() {
        let (waiting, mut ticket) =
            ticket(TransactionId::new(), Instant::now(), new_transaction("k"));
        drop(waiting);
        assert_eq!(ticket.answered().await, None);
    }
}
