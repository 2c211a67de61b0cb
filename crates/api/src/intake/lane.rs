use tokio::sync::mpsc;

use super::{
    queue::{Bound, Row, Waiting},
    write::Writer,
};

/// One of the intake's lanes. An account has one lane, so two batches never cross on a key and an
/// account's requests are written in the order in which they came.
pub(super) struct Lane {
    receiver: mpsc::UnboundedReceiver<Waiting>,
    bound: Bound,
    writer: Writer,
    batch_rows_max: usize,
}

impl Lane {
    pub(super) fn new(
        receiver: mpsc::UnboundedReceiver<Waiting>,
        bound: Bound,
        writer: Writer,
        batch_rows_max: u32,
    ) -> Self {
        Self {
            receiver,
            bound,
            writer,
            batch_rows_max: batch_rows_max as usize,
        }
    }

    /// Writes what waits until nobody can send any more. It runs in a task of its own: a caller
    /// that goes away takes no batch with it.
    pub(super) async fn run(mut self) {
        while let Some(rows) = self.take_waiting().await {
            self.writer.write(rows).await;
        }
    }

    /// Everything that waits, up to the batch's bound; waits for the first. None at the end.
    async fn take_waiting(&mut self) -> Option<Vec<Row>> {
        let mut waiting = Vec::new();
        let count = self
            .receiver
            .recv_many(&mut waiting, self.batch_rows_max)
            .await;
        if count == 0 {
            return None;
        }
        self.bound.leave(count);
        Some(waiting.into_iter().filter_map(Waiting::take).collect())
    }
}
