use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

use crate::SERVICE;

/// Says what each of this service's metrics means, as `/metrics` shows it.
pub(crate) fn describe() {
    describe_counter!(
        "outbox_published_total",
        "Rows with an answer, by topic and result: acknowledged, refused, or unknown (sent again)"
    );
    describe_counter!(
        "dlq_messages_total",
        "Records that were given up and became dead letters, by class"
    );
    describe_histogram!(
        "outbox_insert_to_ack_seconds",
        Unit::Seconds,
        "From the insertion of a row to the broker's acknowledgement"
    );
    describe_gauge!(
        "outbox_lanes_owned",
        "Lanes this instance sends; all together 64"
    );
    describe_outbox();
    describe_gauge!(
        "consumer_lag",
        "Records of a partition that the worker's group has not committed yet"
    );
    describe_counter!(
        "db_pool_acquire_timeouts_total",
        "Times a connection of a pool was waited for in vain"
    );
    // It is there before the first time, so that an increase shows.
    counter!("db_pool_acquire_timeouts_total", "pool" => SERVICE).increment(0);
}

fn describe_outbox() {
    describe_gauge!(
        "outbox_pending_events",
        "Rows that wait to be sent, counted up to 100,000"
    );
    describe_gauge!(
        "outbox_oldest_pending_age_seconds",
        Unit::Seconds,
        "Age of the oldest row that waits to be sent, 0 if there is none"
    );
    describe_gauge!(
        "outbox_table_bytes",
        Unit::Bytes,
        "Size of the outbox with its indexes"
    );
}
