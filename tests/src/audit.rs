//! The auditor: it compares what a test was told with what stands in the books, and the books with
//! each other.

mod check;
mod snapshot;

pub use snapshot::{AccountRow, DeadLetterRow, EntryRow, Snapshot, TransactionRow};

use crate::{stack::Stack, wait::eventually};

/// Transactions that are neither final nor waiting for somebody.
pub(crate) const OPEN_TRANSACTIONS: &str = "SELECT count(*) FROM transactions
    WHERE status = 'PENDING' OR (status = 'PROCESSING' AND failure_reason IS NULL)";

/// The books at the end of a test, found to be right.
#[derive(Clone, Debug)]
pub struct Audit {
    /// What stands in them.
    pub snapshot: Snapshot,
}

impl Audit {
    pub(crate) async fn of(stack: &Stack) -> Self {
        let audit = Self::with_dead_letters(stack).await;
        let dead = audit.dead_lettered();
        assert_eq!(dead, 0, "transactions are dead-lettered");
        audit
    }

    pub(crate) async fn with_dead_letters(stack: &Stack) -> Self {
        let database = &stack.database;
        eventually("the end of every transaction", async || {
            (database.count(OPEN_TRANSACTIONS).await == 0).then_some(())
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
        self.snapshot.transactions.len() - self.processed() - self.dead_lettered()
    }

    /// How many wait for somebody to replay or discard their events.
    #[must_use]
    pub fn dead_lettered(&self) -> usize {
        let transactions = self.snapshot.transactions.iter();
        transactions.filter(|row| row.is_dead_lettered()).count()
    }
}
