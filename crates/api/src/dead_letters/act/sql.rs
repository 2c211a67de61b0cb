//! Replaying and discarding. Their caller begins and commits.

use common::types::{
    AccountId, AmountCents, DeadLetterState, EventId, FailureReason, Lane, TransactionId,
    TransactionStatus, TransactionType,
};
use sqlx::PgConnection;

use super::super::model::{DeadLetter, DeadLetterId};

/// What the aggregate and the event of an outbox row are called that carries a dead letter.
const DEAD_LETTER: &str = "dead_letter";

/// The account that a letter is filed under; the nil id where none could be read.
pub(super) async fn account_of(
    connection: &mut PgConnection,
    id: DeadLetterId,
) -> Result<Option<AccountId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT account_id AS "account_id: AccountId" FROM dead_letters WHERE id = $1"#,
        id.0,
    )
    .fetch_optional(connection)
    .await
}

/// Locks an account as whoever posts for it does, if there is one of this id.
pub(super) async fn lock_account(
    connection: &mut PgConnection,
    id: AccountId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE",
        id.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(())
}

/// A letter's transaction.
#[derive(Debug)]
pub(in super::super) struct Waiting {
    pub(in super::super) status: TransactionStatus,
    pub(in super::super) failure_reason: Option<FailureReason>,
    pub(in super::super) amount_cents: AmountCents,
    pub(in super::super) currency: String,
    pub(in super::super) transaction_type: TransactionType,
}

/// Locks a transaction.
pub(super) async fn lock_transaction(
    connection: &mut PgConnection,
    id: TransactionId,
    account_id: AccountId,
) -> Result<Option<Waiting>, sqlx::Error> {
    sqlx::query_as!(
        Waiting,
        r#"SELECT status AS "status: TransactionStatus", failure_reason AS "failure_reason: FailureReason",
                  amount_cents AS "amount_cents: AmountCents", currency,
                  type AS "transaction_type: TransactionType"
             FROM transactions
            WHERE id = $1 AND account_id = $2
              FOR NO KEY UPDATE"#,
        id.0,
        account_id.0,
    )
    .fetch_optional(connection)
    .await
}

/// DEAD becomes another state. This and the statements below answer how many rows they wrote.
pub(super) async fn set_state(
    connection: &mut PgConnection,
    id: DeadLetterId,
    account_id: AccountId,
    state: DeadLetterState,
) -> Result<u64, sqlx::Error> {
    let set = sqlx::query!(
        "UPDATE dead_letters SET state = $3 WHERE id = $1 AND account_id = $2 AND state = 'DEAD'",
        id.0,
        account_id.0,
        state.as_str(),
    );
    Ok(set.execute(connection).await?.rows_affected())
}

/// An action to record.
pub(super) struct Action<'a> {
    pub(super) name: &'static str,
    pub(super) actor: &'a str,
    pub(super) reason: Option<&'a str>,
    pub(super) request_id: &'a str,
}

/// Records an action, numbered behind the letter's others: the letter is locked.
pub(super) async fn record(
    connection: &mut PgConnection,
    id: DeadLetterId,
    account_id: AccountId,
    action: &Action<'_>,
) -> Result<u64, sqlx::Error> {
    let recorded = sqlx::query!(
        "INSERT INTO dead_letter_actions
                (dead_letter_id, account_id, action_no, action, actor, reason, request_id)
         SELECT $1, $2, coalesce(max(action_no), 0) + 1, $3, $4, $5, $6
           FROM dead_letter_actions
          WHERE dead_letter_id = $1 AND account_id = $2",
        id.0,
        account_id.0,
        action.name,
        action.actor,
        action.reason,
        action.request_id,
    );
    Ok(recorded.execute(connection).await?.rows_affected())
}

/// Opens an event again; none may be closed, if it was long ago.
pub(in super::super) async fn open_event(
    connection: &mut PgConnection,
    id: EventId,
    account_id: AccountId,
) -> Result<u64, sqlx::Error> {
    let opened = sqlx::query!(
        "DELETE FROM processed_events WHERE event_id = $1 AND account_id = $2",
        id.0,
        account_id.0,
    );
    Ok(opened.execute(connection).await?.rows_affected())
}

/// A transaction waits for its event again, and no longer for somebody to act.
pub(in super::super) async fn resume_transaction(
    connection: &mut PgConnection,
    id: TransactionId,
    account_id: AccountId,
) -> Result<u64, sqlx::Error> {
    let resumed = sqlx::query!(
        "UPDATE transactions SET failure_reason = NULL
          WHERE id = $1 AND account_id = $2
            AND status = 'PROCESSING' AND failure_reason = 'dead_lettered'",
        id.0,
        account_id.0,
    );
    Ok(resumed.execute(connection).await?.rows_affected())
}

/// Ends a transaction that is not final.
pub(in super::super) async fn discard_transaction(
    connection: &mut PgConnection,
    id: TransactionId,
    account_id: AccountId,
) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query!(
        "UPDATE transactions
            SET status = 'FAILED', failure_reason = 'discarded', processed_at = now()
          WHERE id = $1 AND account_id = $2 AND status IN ('PENDING', 'PROCESSING')",
        id.0,
        account_id.0,
    );
    Ok(ended.execute(connection).await?.rows_affected())
}

/// Sends a letter's record to where it came from, behind everything of its account that is in the
/// outbox. The row names the letter: its bytes are sent, whatever they are.
pub(in super::super) async fn send_again(
    connection: &mut PgConnection,
    letter: &DeadLetter,
    account_id: AccountId,
) -> Result<u64, sqlx::Error> {
    let event_id = letter.event_id.map_or(letter.id.0, |id| id.0);
    let sent = sqlx::query!(
        "INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic, partition_key,
                                    aggregate_type, event_type, dead_letter_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)",
        event_id,
        account_id.0,
        letter.transaction_id.map_or(event_id, |id| id.0),
        Lane::of(account_id).number(),
        letter.source_topic,
        account_id.to_string(),
        DEAD_LETTER,
        letter.id.0,
    );
    Ok(sent.execute(connection).await?.rows_affected())
}
