//! The auditor: it compares what a test was told with what stands in the books, and the books with
//! each other.

mod check;
mod snapshot;

pub use snapshot::{AccountRow, EntryRow, Snapshot, TransactionRow};

use crate::{stack::Stack, wait::eventually};

/// The books at the end of a test, found to be right.
#[derive(Clone, Debug)]
pub struct Audit {
    /// What stands in them.
    pub snapshot: Snapshot,
}

impl Audit {
    pub(crate) async fn of(stack: &Stack) -> Self {
        let database = &stack.database;
        eventually("the end of every transaction", async || {
            let open =
                "SELECT count(*) FROM transactions WHERE status NOT IN ('PROCESSED', 'FAILED')";
            (database.count(open).await == 0).then_some(())
        })
        .await;
        eventually("every event sent and marked", async || {
            let open = "SELECT count(*) FROM outbox_events WHERE status = 'PENDING'";
            (database.count(open).await == 0).then_some(())
        })
        .await;
        let snapshot = Snapshot::of(stack).await;
        let wrong = snapshot.wrongs(&stack.book.entries());
        assert!(
            wrong.is_empty(),
            "the books are wrong:\n{}",
            wrong.join("\n")
        );
        Self { snapshot }
    }

    /// How many transactions ended PROCESSED.
    #[must_use]
    pub fn processed(&self) -> usize {
        self.snapshot.entries.len()
    }

    /// How many transactions ended FAILED.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.snapshot.transactions.len() - self.processed()
    }
}
