//! Looking at dead letters. None of these reads key, value or headers, but [`contents`].

use chrono::{DateTime, Utc};
use common::types::{
    AccountId, DeadLetterClass, DeadLetterStage, DeadLetterState, EventId, RecordHeaders,
    TransactionId,
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    filter::Filter,
    model::{DeadLetter, DeadLetterAction, DeadLetterId},
};

/// Letters as the API shows them; `$rest` is the statement behind FROM. The nil account stands for none.
macro_rules! letters {
    ($rest:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            DeadLetter,
            r#"SELECT id AS "id: DeadLetterId",
                      nullif(account_id, '00000000-0000-0000-0000-000000000000') AS "account_id: AccountId",
                      event_id AS "event_id: EventId", transaction_id AS "transaction_id: TransactionId",
                      state AS "state: DeadLetterState", error_class AS "class: DeadLetterClass",
                      error_stage AS "stage: DeadLetterStage", error_message AS message, attempts,
                      replay_count, source_topic, source_partition, source_offset, recorded_at,
                      first_failed_at, dead_at
                 FROM dead_letters "# + $rest,
            $($argument),*
        )
    };
}

pub(super) async fn find(
    connection: &mut PgConnection,
    id: DeadLetterId,
) -> Result<Option<DeadLetter>, sqlx::Error> {
    letters!("WHERE id = $1", id.0,)
        .fetch_optional(connection)
        .await
}

/// What a letter's record held.
pub(super) struct Contents {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Json<RecordHeaders>,
}

pub(super) async fn contents(
    connection: &mut PgConnection,
    id: DeadLetterId,
) -> Result<Contents, sqlx::Error> {
    sqlx::query_as!(
        Contents,
        r#"SELECT key, value, headers AS "headers: Json<RecordHeaders>"
             FROM dead_letters
            WHERE id = $1"#,
        id.0,
    )
    .fetch_one(connection)
    .await
}

/// What was done to a letter, newest first.
pub(super) async fn actions(
    connection: &mut PgConnection,
    id: DeadLetterId,
    limit: i64,
) -> Result<Vec<DeadLetterAction>, sqlx::Error> {
    sqlx::query_as!(
        DeadLetterAction,
        r#"SELECT action, actor, reason, request_id, at
             FROM dead_letter_actions
            WHERE dead_letter_id = $1
            ORDER BY action_no DESC
            LIMIT $2"#,
        id.0,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Which letters a search goes through: each has an index in the order of their ids. State DEAD is
/// written out, because a partial index serves no statement that has it as a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    All,
    Dead,
    Account(AccountId),
}

/// The letter that stands so many behind an id, newest first: where a bounded search ends.
pub(super) async fn nth_below(
    connection: &mut PgConnection,
    among: Among,
    below: Uuid,
    rows: i64,
) -> Result<Option<Uuid>, sqlx::Error> {
    match among {
        Among::All => {
            sqlx::query_scalar!(
                "SELECT id FROM dead_letters WHERE id < $1 ORDER BY id DESC OFFSET $2 LIMIT 1",
                below,
                rows,
            )
            .fetch_optional(connection)
            .await
        }
        Among::Dead => {
            sqlx::query_scalar!(
                "SELECT id FROM dead_letters
              WHERE state = 'DEAD' AND id < $1
              ORDER BY id DESC OFFSET $2 LIMIT 1",
                below,
                rows,
            )
            .fetch_optional(connection)
            .await
        }
        Among::Account(account_id) => {
            sqlx::query_scalar!(
                "SELECT id FROM dead_letters
              WHERE account_id = $1 AND id < $2
              ORDER BY id DESC OFFSET $3 LIMIT 1",
                account_id.0,
                below,
                rows,
            )
            .fetch_optional(connection)
            .await
        }
    }
}

/// A stretch of a list: below an id and above another, so many rows at most. Both bounds are plain
/// comparisons, so that the index ends the scan under a generic plan too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) below: Uuid,
    pub(super) above: Uuid,
    pub(super) limit: i64,
}

/// Letters of one account, newest first.
pub(super) async fn list_of_account(
    connection: &mut PgConnection,
    account_id: AccountId,
    stretch: Stretch,
    state: Option<DeadLetterState>,
    filter: &Filter,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    letters!(
        "WHERE account_id = $1
              AND id < $2
              AND id > $3
              AND ($4::text IS NULL OR state = $4)
              AND ($5::text IS NULL OR error_class = $5)
              AND ($6::timestamptz IS NULL OR dead_at >= $6)
              AND ($7::timestamptz IS NULL OR dead_at < $7)
            ORDER BY id DESC
            LIMIT $8",
        account_id.0,
        stretch.below,
        stretch.above,
        state.map(DeadLetterState::as_str),
        filter.class.map(DeadLetterClass::as_str),
        filter.dead_from,
        filter.dead_to,
        stretch.limit,
    )
    .fetch_all(connection)
    .await
}

/// Letters of all accounts that wait for somebody, newest first.
pub(super) async fn list_dead(
    connection: &mut PgConnection,
    stretch: Stretch,
    filter: &Filter,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    letters!(
        "WHERE state = 'DEAD'
              AND id < $1
              AND id > $2
              AND ($3::text IS NULL OR error_class = $3)
              AND ($4::timestamptz IS NULL OR dead_at >= $4)
              AND ($5::timestamptz IS NULL OR dead_at < $5)
            ORDER BY id DESC
            LIMIT $6",
        stretch.below,
        stretch.above,
        filter.class.map(DeadLetterClass::as_str),
        filter.dead_from,
        filter.dead_to,
        stretch.limit,
    )
    .fetch_all(connection)
    .await
}

/// Letters of all accounts, newest first.
pub(super) async fn list(
    connection: &mut PgConnection,
    stretch: Stretch,
    state: Option<DeadLetterState>,
    filter: &Filter,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    letters!(
        "WHERE id < $1
              AND id > $2
              AND ($3::text IS NULL OR state = $3)
              AND ($4::text IS NULL OR error_class = $4)
              AND ($5::timestamptz IS NULL OR dead_at >= $5)
              AND ($6::timestamptz IS NULL OR dead_at < $6)
            ORDER BY id DESC
            LIMIT $7",
        stretch.below,
        stretch.above,
        state.map(DeadLetterState::as_str),
        filter.class.map(DeadLetterClass::as_str),
        filter.dead_from,
        filter.dead_to,
        stretch.limit,
    )
    .fetch_all(connection)
    .await
}

/// As much of a letter in state DEAD as tells whether a replay of many means it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) id: DeadLetterId,
    /// The nil id where none could be read.
    pub(super) account_id: AccountId,
    pub(super) class: DeadLetterClass,
    pub(super) dead_at: DateTime<Utc>,
}

/// Lets the database transaction wait for no lock for long: it replays one letter of many.
pub(super) async fn wait_briefly(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SET LOCAL lock_timeout = '500ms'")
        .execute(connection)
        .await?;
    Ok(())
}

/// Letters in state DEAD, of one account or of all, behind an id, oldest first.
pub(super) async fn open_behind(
    connection: &mut PgConnection,
    account_id: Option<AccountId>,
    behind: Uuid,
    limit: i64,
) -> Result<Vec<Open>, sqlx::Error> {
    match account_id {
        Some(account_id) => {
            sqlx::query_as!(
                Open,
                r#"SELECT id AS "id: DeadLetterId", account_id AS "account_id: AccountId",
                      error_class AS "class: DeadLetterClass", dead_at
                 FROM dead_letters
                WHERE account_id = $1 AND state = 'DEAD' AND id > $2
                ORDER BY id
                LIMIT $3"#,
                account_id.0,
                behind,
                limit,
            )
            .fetch_all(connection)
            .await
        }
        None => {
            sqlx::query_as!(
                Open,
                r#"SELECT id AS "id: DeadLetterId", account_id AS "account_id: AccountId",
                      error_class AS "class: DeadLetterClass", dead_at
                 FROM dead_letters
                WHERE state = 'DEAD' AND id > $1
                ORDER BY id
                LIMIT $2"#,
                behind,
                limit,
            )
            .fetch_all(connection)
            .await
        }
    }
}

/// These letters, oldest first.
pub(super) async fn find_all(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    letters!("WHERE id = ANY($1) ORDER BY id", ids)
        .fetch_all(connection)
        .await
}

/// Locks a letter; it is never deleted.
pub(super) async fn lock(
    connection: &mut PgConnection,
    id: DeadLetterId,
    account_id: AccountId,
) -> Result<DeadLetter, sqlx::Error> {
    letters!(
        "WHERE id = $1 AND account_id = $2 FOR NO KEY UPDATE",
        id.0,
        account_id.0,
    )
    .fetch_one(connection)
    .await
}

/// The database's clock, by which letters die.
pub(super) async fn now(connection: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT now() AS "now!""#)
        .fetch_one(connection)
        .await
}
