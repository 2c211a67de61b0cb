use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::timeout,
};

use super::{
    queue::{Bound, Row, Waiting},
    write::Writer,
};

/// From so many rows on a batch is written beside another lane's: what it costs besides its rows is
/// then too little to be worth a wait.
const LARGE_BATCH_ROWS: usize = 32;

/// The longest wait for the turn: a batch that is tried again must not hold up the other lanes.
const TURN_WAIT_MAX: Duration = Duration::from_millis(20);

/// Lets one small batch be written at a time, over all lanes. The next lane's takes with it what comes
/// meanwhile: half as many statements do the same.
#[derive(Clone, Debug)]
pub(super) struct SmallBatches(Arc<Semaphore>);

impl SmallBatches {
    pub(super) fn one_at_a_time() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Waits for its turn, unless so many rows are a large batch, and not for ever: then there is none.
    async fn turn(&self, rows: usize) -> Option<SemaphorePermit<'_>> {
        if rows >= LARGE_BATCH_ROWS {
            return None;
        }
        // The semaphore is never closed.
        timeout(TURN_WAIT_MAX, self.0.acquire()).await.ok()?.ok()
    }
}

/// One of the intake's lanes. An account has one lane, so two batches never cross on a key and an
/// account's requests are written in the order in which they came.
pub(super) struct Lane {
    receiver: mpsc::UnboundedReceiver<Vec<Waiting>>,
    /// What came and was not taken yet; its callers may still go away.
    waiting: VecDeque<Waiting>,
    bound: Bound,
    small_batches: SmallBatches,
    writer: Writer,
    batch_rows_max: usize,
}

impl Lane {
    pub(super) fn new(
        receiver: mpsc::UnboundedReceiver<Vec<Waiting>>,
        bound: Bound,
        small_batches: SmallBatches,
        writer: Writer,
        batch_rows_max: u32,
    ) -> Self {
        Self {
            receiver,
            waiting: VecDeque::new(),
            bound,
            small_batches,
            writer,
            batch_rows_max: batch_rows_max as usize,
        }
    }

    /// Writes what waits until nobody can send any more. It runs in a task of its own: a caller
    /// that goes away takes no batch with it.
    pub(super) async fn run(mut self) {
        let small_batches = self.small_batches.clone();
        while self.has_waiting().await {
            let _turn = small_batches.turn(self.waiting.len()).await;
            let rows = self.take_waiting();
            self.writer.write(rows).await;
        }
    }

    /// Waits until something waits. Nothing ever will if this is false.
    async fn has_waiting(&mut self) -> bool {
        if self.waiting.is_empty()
            && let Some(rows) = self.receiver.recv().await
        {
            self.waiting.extend(rows);
        }
        self.gather();
        !self.waiting.is_empty()
    }

    fn gather(&mut self) {
        while let Ok(rows) = self.receiver.try_recv() {
            self.waiting.extend(rows);
        }
    }

    /// All that waits, up to the batch's bound.
    fn take_waiting(&mut self) -> Vec<Row> {
        self.gather();
        let count = self.waiting.len().min(self.batch_rows_max);
        self.bound.leave(count);
        let taken = self.waiting.drain(..count);
        taken.filter_map(Waiting::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_small_batch_waits_for_another_and_a_large_one_for_none() {
        let small_batches = SmallBatches::one_at_a_time();
        let turn = |rows| small_batches.turn(rows).now_or_never();
        let first = turn(1).unwrap();
        assert!(turn(LARGE_BATCH_ROWS - 1).is_none(), "it is not its turn");
        assert!(turn(LARGE_BATCH_ROWS).is_some());
        drop(first);
        assert!(turn(1).is_some());
    }

    #[tokio::test]
    async fn a_batch_that_is_not_done_soon_holds_up_nobody() {
        let small_batches = SmallBatches::one_at_a_time();
        let _stuck = small_batches.turn(1).await.unwrap();
        assert!(small_batches.turn(1).await.is_none());
    }
}
