use chrono::{DateTime, Utc};
use common::types::{DeadLetterClass, DeadLetterStage, EventType, FailureReason};
use sqlx::{Error, PgConnection};
use uuid::Uuid;

/// A row that is to become a dead letter.
#[derive(Debug)]
pub(super) struct RefusedRow {
    pub(super) seq: i64,
    pub(super) account_id: Uuid,
    pub(super) event_id: Uuid,
    pub(super) aggregate_id: Uuid,
    pub(super) created_at: DateTime<Utc>,
    /// How often it was refused before.
    pub(super) publish_attempts: i32,
    /// Of an event.
    pub(super) event_type: Option<EventType>,
    /// Of a replay.
    pub(super) dead_letter_id: Option<Uuid>,
}

/// What a letter says about why it is one.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    class: &'static str,
    stage: &'static str,
    message: &'a str,
    attempts: i32,
}

impl<'a> Failure<'a> {
    pub(super) const fn of(message: &'a str, row: &RefusedRow) -> Self {
        Self {
            class: DeadLetterClass::RefusedByBroker.as_str(),
            stage: DeadLetterStage::Publish.as_str(),
            message,
            attempts: row.publish_attempts + 1,
        }
    }
}

/// A letter is not to be lost with a crash of the server, as marks may be: what was sent instead of
/// the row could not be sent again.
pub(super) async fn commit_durably(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("SET LOCAL synchronous_commit = on")
        .execute(connection)
        .await?;
    Ok(())
}

/// Locks a row that is not marked; none if somebody was here before.
pub(super) async fn lock_row(
    connection: &mut PgConnection,
    seq: i64,
    account_id: Uuid,
) -> Result<Option<RefusedRow>, Error> {
    let row = sqlx::query!(
        "SELECT event_id, aggregate_id, created_at, publish_attempts, event_type, dead_letter_id
           FROM outbox_events
          WHERE seq = $1 AND account_id = $2 AND status <> 'PUBLISHED'
            FOR UPDATE",
        seq,
        account_id
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| RefusedRow {
        seq,
        account_id,
        event_id: row.event_id,
        aggregate_id: row.aggregate_id,
        created_at: row.created_at,
        publish_attempts: row.publish_attempts,
        event_type: row.event_type.parse().ok(),
        dead_letter_id: row.dead_letter_id,
    }))
}

/// Locks a transaction; whether it waits for its event to be sent is the answer, none if there is no
/// such transaction. One that is final was posted; one whose event is parked or a dead letter is
/// waited for elsewhere.
pub(super) async fn lock_transaction(
    connection: &mut PgConnection,
    id: Uuid,
    account_id: Uuid,
) -> Result<Option<bool>, Error> {
    sqlx::query_scalar!(
        r#"SELECT status IN ('PENDING', 'PROCESSING') AND failure_reason IS NULL
                  AND NOT EXISTS (SELECT FROM parked_events AS parked
                                   WHERE parked.event_id = $1 AND parked.account_id = $2) AS "waits!"
             FROM transactions
            WHERE id = $1 AND account_id = $2
              FOR NO KEY UPDATE"#,
        id,
        account_id
    )
    .fetch_optional(connection)
    .await
}

/// Locks a letter that is replayed; the answer is the transaction that waits for it. None if it is
/// in another state.
pub(super) async fn lock_replayed(
    connection: &mut PgConnection,
    id: Uuid,
    account_id: Uuid,
) -> Result<Option<Option<Uuid>>, Error> {
    sqlx::query_scalar!(
        "SELECT transaction_id FROM dead_letters
          WHERE id = $1 AND account_id = $2 AND state = 'REPLAYED'
            FOR UPDATE",
        id,
        account_id
    )
    .fetch_optional(connection)
    .await
}

/// Writes the letter of an outbox row: its key and value are those it was sent with. An event that
/// was replayed, and its row then written again (`publisher resend`), has a letter already, to which
/// it comes back; none if that letter is not replayed.
pub(super) async fn insert_letter(
    connection: &mut PgConnection,
    row: &RefusedRow,
    transaction_id: Option<Uuid>,
    headers: &str,
    failure: &Failure<'_>,
) -> Result<Option<Uuid>, Error> {
    sqlx::query_scalar!(
        "INSERT INTO dead_letters AS letter
                (id, account_id, event_id, transaction_id, first_failed_at, attempts, source_topic,
                 error_class, error_stage, error_message, key, value, headers, value_sha256)
         SELECT $1, account_id, event_id, $2, now(), $3, topic, $4, $5, $6,
                convert_to(partition_key, 'UTF8'), convert_to(payload::text, 'UTF8'), $7::text::json,
                sha256(convert_to(payload::text, 'UTF8'))
           FROM outbox_events
          WHERE seq = $8 AND account_id = $9
             ON CONFLICT (event_id, account_id) WHERE transaction_id IS NOT NULL
             DO UPDATE SET state = 'DEAD', dead_at = now(), first_failed_at = now(),
                           replay_count = letter.replay_count + 1, attempts = excluded.attempts,
                           error_class = excluded.error_class, error_stage = excluded.error_stage,
                           error_message = excluded.error_message
                     WHERE letter.state = 'REPLAYED'
         RETURNING id",
        Uuid::now_v7(),
        transaction_id,
        failure.attempts,
        failure.class,
        failure.stage,
        failure.message,
        headers,
        row.seq,
        row.account_id
    )
    .fetch_optional(connection)
    .await
}

/// A replayed letter is dead again.
pub(super) async fn return_letter(
    connection: &mut PgConnection,
    id: Uuid,
    account_id: Uuid,
    failure: &Failure<'_>,
) -> Result<u64, Error> {
    let returned = sqlx::query!(
        "UPDATE dead_letters
            SET state = 'DEAD', dead_at = now(), first_failed_at = now(),
                replay_count = replay_count + 1, attempts = $3, error_class = $4, error_stage = $5,
                error_message = $6
          WHERE id = $1 AND account_id = $2 AND state = 'REPLAYED'",
        id,
        account_id,
        failure.attempts,
        failure.class,
        failure.stage,
        failure.message
    )
    .execute(connection)
    .await?;
    Ok(returned.rows_affected())
}

/// Closes the event of a transaction, whose id it bears: should it come after all, it is a
/// duplicate, until somebody replays it.
pub(super) async fn close_event(
    connection: &mut PgConnection,
    transaction_id: Uuid,
    account_id: Uuid,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO processed_events (event_id, account_id, transaction_id) VALUES ($1, $2, $1)
             ON CONFLICT DO NOTHING",
        transaction_id,
        account_id
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The transaction waits for somebody to decide on its letter.
pub(super) async fn suspend(
    connection: &mut PgConnection,
    transaction_id: Uuid,
    account_id: Uuid,
) -> Result<u64, Error> {
    let suspended = sqlx::query!(
        "UPDATE transactions
            SET status = 'PROCESSING', failure_reason = $3
          WHERE id = $1 AND account_id = $2 AND status IN ('PENDING', 'PROCESSING')",
        transaction_id,
        account_id,
        FailureReason::DeadLettered.as_str()
    )
    .execute(connection)
    .await?;
    Ok(suspended.rows_affected())
}

/// Writes the outbox row by which a letter goes to the topic of dead letters, in the lane of the row
/// it was made of.
pub(super) async fn announce(
    connection: &mut PgConnection,
    id: Uuid,
    row: &RefusedRow,
    topic: &str,
) -> Result<u64, Error> {
    let announced = sqlx::query!(
        "INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic, partition_key,
                                    aggregate_type, event_type, dead_letter_id)
         SELECT $1, account_id, aggregate_id, lane, $4, partition_key, 'dead_letter', 'dead_letter', $1
           FROM outbox_events
          WHERE seq = $2 AND account_id = $3",
        id,
        row.seq,
        row.account_id,
        topic
    )
    .execute(connection)
    .await?;
    Ok(announced.rows_affected())
}

/// Removes a row, or marks it, where published rows are kept; it then says why it was not sent.
pub(super) async fn take_off(
    connection: &mut PgConnection,
    row: &RefusedRow,
    keeps_row: bool,
    reason: &str,
) -> Result<u64, Error> {
    let query = if keeps_row {
        sqlx::query!(
            "UPDATE outbox_events
                SET status = 'PUBLISHED', published_at = now(),
                    publish_attempts = publish_attempts + 1, last_error = $3
              WHERE seq = $1 AND account_id = $2",
            row.seq,
            row.account_id,
            reason
        )
    } else {
        sqlx::query!(
            "DELETE FROM outbox_events WHERE seq = $1 AND account_id = $2",
            row.seq,
            row.account_id
        )
    };
    Ok(query.execute(connection).await?.rows_affected())
}
