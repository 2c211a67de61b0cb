use futures_util::Stream;
use sqlx::{Error, PgConnection};
use uuid::Uuid;

/// A transaction that waits to be posted.
#[derive(Debug)]
pub(super) struct PendingTransaction {
    pub(super) id: Uuid,
    pub(super) account_id: Uuid,
    pub(super) amount_cents: i64,
    pub(super) currency: String,
    pub(super) transaction_type: String,
}

/// The transactions still PENDING that were accepted so many seconds ago or earlier, in the order
/// of acceptance: of two requests of an account, one sent after the other's acknowledgement has the
/// later time, and ids of version 7 order those of one batch. It reads the whole table, which only
/// an operator's command may do.
pub(super) fn pending_transactions(
    connection: &mut PgConnection,
    seconds_ago: f64,
) -> impl Stream<Item = Result<PendingTransaction, Error>> {
    sqlx::query_as!(
        PendingTransaction,
        r#"SELECT id, account_id, amount_cents, currency, type AS transaction_type
             FROM transactions
            WHERE status = 'PENDING' AND created_at <= now() - make_interval(secs => $1)
            ORDER BY created_at, id"#,
        seconds_ago
    )
    .fetch(connection)
}
