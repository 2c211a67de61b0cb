use common::types::EventType;
use futures_util::Stream;
use sqlx::{Error, PgConnection};
use uuid::Uuid;

/// A transaction that waits to be posted.
#[derive(Debug)]
pub(super) struct WaitingTransaction {
    pub(super) id: Uuid,
    pub(super) account_id: Uuid,
    pub(super) amount_cents: i64,
    pub(super) currency: String,
    pub(super) transaction_type: String,
    /// The outbox rows of its event that were not sent yet. (The row of a replay is none: it says
    /// what a letter says, and stays where it is.)
    pub(super) waiting_seqs: Vec<i64>,
}

/// Keeps everybody else from writing to the outbox until this transaction ends, and waits for those
/// who are writing.
pub(super) async fn lock_outbox(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("LOCK TABLE outbox_events IN SHARE ROW EXCLUSIVE MODE")
        .execute(connection)
        .await?;
    Ok(())
}

/// The transactions that wait to be posted of each account that has one accepted so many seconds ago
/// or earlier: those PENDING, and those PROCESSING whose event was replayed, which are the ones that
/// are neither dead letters nor parked. In the order of acceptance: of two requests of an account, one sent after the other's
/// acknowledgement has the later time, and ids of version 7 order those of one batch. It reads whole
/// tables, which only an operator's command may do.
pub(super) fn waiting_transactions(
    connection: &mut PgConnection,
    seconds_ago: f64,
) -> impl Stream<Item = Result<WaitingTransaction, Error>> {
    sqlx::query_as!(
        WaitingTransaction,
        r#"WITH open AS (
                SELECT id, account_id, amount_cents, currency, type, created_at
                  FROM transactions
                 WHERE status = 'PENDING'
                    OR (status = 'PROCESSING' AND failure_reason IS NULL
                        AND NOT EXISTS (SELECT FROM parked_events AS parked
                                         WHERE parked.event_id = transactions.id
                                           AND parked.account_id = transactions.account_id))
           ), concerned AS (
                SELECT DISTINCT account_id
                  FROM open
                 WHERE created_at <= now() - make_interval(secs => $1)
           ), waiting AS (
                SELECT aggregate_id, account_id, array_agg(seq) AS seqs
                  FROM outbox_events
                 WHERE status = 'PENDING' AND event_type = $2 AND dead_letter_id IS NULL
                 GROUP BY aggregate_id, account_id
           )
           SELECT open.id AS "id!", open.account_id AS "account_id!",
                  amount_cents AS "amount_cents!", currency AS "currency!",
                  type AS "transaction_type!", coalesce(waiting.seqs, '{}') AS "waiting_seqs!"
             FROM open
             JOIN concerned ON concerned.account_id = open.account_id
             LEFT JOIN waiting ON waiting.aggregate_id = open.id
                              AND waiting.account_id = open.account_id
            ORDER BY created_at, open.id"#,
        seconds_ago,
        EventType::TransactionCreated.as_str()
    )
    .fetch(connection)
}
