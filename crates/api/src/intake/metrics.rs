use std::sync::LazyLock;

use metrics::{Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram};

use crate::transactions::Transaction;

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

pub(super) fn accepted(transaction: &Transaction) {
    counter!(
        "transactions_accepted_total",
        "type" => transaction.transaction_type.as_str(),
        "currency" => transaction.currency.clone()
    )
    .increment(1);
}

/// Counted where the service's other pools are counted too.
pub(super) fn attempt_failed(error: &sqlx::Error) {
    if matches!(error, sqlx::Error::PoolTimedOut) {
        counter!("db_pool_acquire_timeouts_total", "pool" => "intake").increment(1);
    }
}
