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

/// How many rows of each table a dead letter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buried {
    /// Letters written, or brought back.
    pub letters: i64,
    /// Transactions that wait for them.
    pub transactions: i64,
    /// Accounts whose count was lowered.
    pub accounts: i64,
    /// Rows for the dead letter topic.
    pub announced: i64,
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
    let planned = Buried {
        letters: 1,
        transactions: i64::from(cause.has_transaction),
        accounts: 1,
        announced: 1,
    };
    if written.rows != planned {
        return Err(ApplyError::Buried {
            planned,
            written: written.rows,
        });
    }
    faults::point("worker.dead_before_commit");
    transaction.commit().await?;
    faults::point("worker.dead_after_commit");
    Ok(Some(id))
}
