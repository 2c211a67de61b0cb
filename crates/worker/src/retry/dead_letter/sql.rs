use common::types::{DeadLetterClass, DeadLetterStage};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Cause;
use crate::retry::queue::Parked;

/// A letter that is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letter<'a> {
    /// Of a new letter.
    pub(super) id: Uuid,
    /// The topic it leaves on.
    pub(super) topic: &'a str,
    /// The account's.
    pub(super) lane: i16,
}

/// What [`bury`] did.
pub(super) struct Written {
    /// The letter's id; none if the head was not there any more.
    pub(super) id: Option<Uuid>,
    /// Transactions that wait for it.
    pub(super) transactions: i64,
    /// Accounts whose count was lowered.
    pub(super) accounts: i64,
    /// Rows for the dead letter topic.
    pub(super) announced: i64,
}

/// Makes a letter of a head, behind its account's lock: the record goes as it is, its transaction waits
/// as PROCESSING, its event counts as closed, the event behind it is the new head and due at once, and a
/// row of the outbox brings the letter to its topic.
///
/// Where no transaction waits for the letter, nothing is closed: its event may yet come true.
///
/// An event that was replayed and dies again comes back to its own row, which says where its record stood
/// first.
pub(super) async fn bury(
    connection: &mut PgConnection,
    head: &Parked,
    letter: &Letter<'_>,
    cause: Cause<'_>,
) -> Result<Written, sqlx::Error> {
    let written = sqlx::query!(
        r#"WITH gone AS (
               DELETE FROM parked_events
                WHERE account_id = $1 AND position = $2 AND attempts = $3
               RETURNING *
           ), letter AS (
               INSERT INTO dead_letters (id, account_id, event_id, transaction_id, source_topic,
                      source_partition, source_offset, recorded_at, first_failed_at, attempts,
                      error_class, error_stage, error_message, key, value, headers, value_sha256)
               SELECT $4, account_id, event_id, CASE WHEN $7 THEN event_id END, source_topic,
                      source_partition, source_offset, recorded_at,
                      coalesce(first_failed_at, now()), attempts + 1, $8, $9, $10, key, value,
                      headers, sha256(coalesce(value, ''))
                 FROM gone
                   ON CONFLICT (event_id, account_id) WHERE transaction_id IS NOT NULL
                   DO UPDATE SET state = 'DEAD', dead_at = now(),
                      replay_count = dead_letters.replay_count + 1,
                      first_failed_at = excluded.first_failed_at, attempts = excluded.attempts,
                      error_class = excluded.error_class, error_stage = excluded.error_stage,
                      error_message = excluded.error_message
               RETURNING id, account_id, event_id
           ), closed AS (
               INSERT INTO processed_events (event_id, account_id, transaction_id)
               SELECT event_id, account_id, event_id FROM letter WHERE $7
                   ON CONFLICT DO NOTHING
           ), waiting AS (
               UPDATE transactions
                  SET status = 'PROCESSING', failure_reason = 'dead_lettered'
                 FROM letter
                WHERE $7
                  AND transactions.id = letter.event_id
                  AND transactions.account_id IS NOT DISTINCT FROM letter.account_id
                  AND transactions.status IN ('PENDING', 'PROCESSING')
               RETURNING 1
           ), counted AS (
               UPDATE accounts
                  SET parked_count = parked_count - 1, updated_at = now()
                 FROM gone
                WHERE accounts.id = gone.account_id
               RETURNING 1
           ), promoted AS (
               UPDATE parked_events
                  SET next_attempt_at = now()
                 FROM gone
                CROSS JOIN LATERAL (
                      SELECT position
                        FROM parked_events AS behind
                       WHERE behind.account_id = gone.account_id AND behind.position > gone.position
                       ORDER BY position
                       LIMIT 1) AS next
                WHERE parked_events.account_id = gone.account_id
                  AND parked_events.position = next.position
           ), announced AS (
               INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic,
                                          partition_key, aggregate_type, event_type, dead_letter_id)
               SELECT id, account_id, event_id, $5, $6, account_id::text, 'dead_letter',
                      'dead_letter', id
                 FROM letter
               RETURNING 1
           )
           SELECT (SELECT id FROM letter) AS id,
                  (SELECT count(*) FROM waiting) AS "transactions!",
                  (SELECT count(*) FROM counted) AS "accounts!",
                  (SELECT count(*) FROM announced) AS "announced!""#,
        head.account.0,
        head.position,
        head.attempts,
        letter.id,
        letter.lane,
        letter.topic,
        cause.has_transaction,
        cause.class as DeadLetterClass,
        cause.stage as DeadLetterStage,
        cause.message,
    )
    .fetch_one(connection)
    .await?;
    Ok(Written {
        id: written.id,
        transactions: written.transactions,
        accounts: written.accounts,
        announced: written.announced,
    })
}
