use std::sync::LazyLock;

use common::types::{Currency, TransactionType};
use metrics::{Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram};

use super::NewTransaction;

struct Handles {
    queue_depth: Gauge,
    batch_rows: Histogram,
}

/// Registered once, when the intake is first used: the recorder is there by then, and the hot path
/// looks nothing up.
static HANDLES: LazyLock<Handles> = LazyLock::new(|| {
    describe_gauge!("intake_queue_depth", "Transactions that wait to be written");
    describe_histogram!(
        "intake_batch_rows",
        "Transactions written in one database transaction"
    );
    describe_counter!(
        "intake_batch_retries_total",
        "Intake batches tried again, by error class"
    );
    describe_counter!(
        "transactions_accepted_total",
        "Transactions written and acknowledged"
    );
    Handles {
        queue_depth: metrics::gauge!("intake_queue_depth"),
        batch_rows: metrics::histogram!("intake_batch_rows"),
    }
});

pub(super) fn queue_depth() -> &'static Gauge {
    &HANDLES.queue_depth
}

pub(super) fn batch_written(rows: usize) {
    HANDLES
        .batch_rows
        .record(u32::try_from(rows).unwrap_or(u32::MAX));
}

pub(super) fn batch_retried(class: &'static str) {
    counter!("intake_batch_retries_total", "class" => class).increment(1);
}

/// The transactions accepted in one commit, counted together: looking a counter up by its labels
/// costs more than counting.
#[derive(Debug, Default)]
pub(super) struct Accepted(Vec<((TransactionType, Currency), u64)>);

impl Accepted {
    pub(super) fn add(&mut self, new: &NewTransaction) {
        let labels = (new.transaction_type, new.currency);
        match self.0.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, count)) => *count += 1,
            None => self.0.push((labels, 1)),
        }
    }

    /// Adds them to `transactions_accepted_total`.
    pub(super) fn count(self) {
        for ((transaction_type, currency), count) in &self.0 {
            let currency = currency.as_str().to_owned();
            counter!("transactions_accepted_total", "type" => transaction_type.as_str(), "currency" => currency)
                .increment(*count);
        }
    }
}

/// Counted where the service's other pools are counted too.
pub(super) fn attempt_failed(error: &sqlx::Error) {
    if matches!(error, sqlx::Error::PoolTimedOut) {
        counter!("db_pool_acquire_timeouts_total", "pool" => "intake").increment(1);
    }
}
