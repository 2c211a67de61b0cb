//! Giving up the head of a queue: its record becomes a dead letter, and its account's later events go on.

mod sql;

use common::{
    faults,
    types::{DeadLetterClass, DeadLetterStage, Lane},
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{queue::Parked, sql::lock_account};
use crate::slice::ApplyError;

/// What a dead letter says of its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cause<'a> {
    pub(super) class: DeadLetterClass,
    pub(super) stage: DeadLetterStage,
    pub(super) message: &'a str,
    /// Whether there is a transaction that waits for the letter.
    pub(super) has_transaction: bool,
}

/// Makes the head of a queue a dead letter, in one transaction, and answers the letter's id; none if it
/// is no longer the head that failed. An event that died before comes back to its own letter.
pub(super) async fn bury(
    connection: &mut PgConnection,
    dead_letters_topic: &str,
    head: &Parked,
    cause: Cause<'_>,
) -> Result<Option<Uuid>, ApplyError> {
    // Whatever the pool's level: the account's lock and the number of attempts decide, not a snapshot.
    let mut transaction = connection
        .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
        .await?;
    lock_account(&mut transaction, head.account).await?;
    let letter = sql::Letter {
        id: Uuid::now_v7(),
        topic: dead_letters_topic,
        lane: Lane::of(head.account).number(),
    };
    let written = sql::bury(&mut transaction, head, &letter, cause).await?;
    let Some(id) = written.id else {
        return Ok(None);
    };
    let transactions = usize::from(cause.has_transaction);
    ApplyError::check("transactions", transactions, written.transactions)?;
    ApplyError::check("accounts", 1, written.accounts)?;
    ApplyError::check("outbox_events", 1, written.announced)?;
    faults::point("worker.dead_before_commit");
    transaction.commit().await?;
    faults::point("worker.dead_after_commit");
    Ok(Some(id))
}
