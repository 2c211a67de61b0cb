//! Rebuilds the events of transactions that wait to be posted, for the day a topic was lost.

mod sql;

use std::{iter::repeat_n, mem::take, pin::pin, time::Duration};

use common::{
    outbox::{self, OutboxEvent},
    types::{
        AccountId, AmountCents, Currency, EventId, EventType, NotPositive, SCHEMA_VERSION,
        TransactionCreated, TransactionId, TransactionType, UnknownCurrency, UnknownName,
    },
};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use thiserror::Error;
use uuid::Uuid;

use crate::cycle::remove_unmarked;

/// How many events are written in one statement.
const CHUNK_EVENTS: usize = 1_000;

/// Why no event was written again.
#[derive(Debug, Error)]
pub enum ResendError {
    /// The database refused.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A transaction's row holds what no transaction may hold.
    #[error("transaction {0} holds an unusable value: {1}")]
    Transaction(TransactionId, String),
    /// A statement wrote another number of rows than it was given.
    #[error("{found} outbox rows were written instead of {expected}")]
    Rows {
        /// How many were given.
        expected: usize,
        /// How many were written.
        found: u64,
    },
    /// The event could not be written as JSON.
    #[error("an event could not be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Events to be written, and the rows they stand for.
#[derive(Default)]
struct Chunk {
    events: Vec<OutboxEvent>,
    waiting_seqs: Vec<i64>,
    waiting_account_ids: Vec<Uuid>,
}

/// Writes the `transaction.created` events of transactions that wait to be posted to the outbox again,
/// in the order of acceptance; the answer is how many. They are those of each account that has one
/// accepted at least so long ago, the younger ones of these accounts included: those come behind,
/// and rows of theirs that were not sent yet are taken back, so that none stands before an older
/// one.
///
/// All is one transaction: cut off in the middle, nothing has happened. Nobody else writes to the
/// outbox meanwhile, or a transaction accepted in between could come before an older one.
/// Transactions are read as one stream, so that memory does not grow with the backlog.
pub async fn resend(
    database: PgConnectOptions,
    topic: &str,
    pending_older_than: Duration,
) -> Result<u64, ResendError> {
    let database = database.application_name("publisher resend");
    let mut reader = PgConnection::connect_with(&database).await?;
    let mut writer = PgConnection::connect_with(&database).await?;
    let mut writing = writer.begin().await?;
    sql::lock_outbox(&mut writing).await?;
    // What is read from here on is all that was accepted before the lock.
    let rows = sql::waiting_transactions(&mut reader, pending_older_than.as_secs_f64());
    let mut rows = pin!(rows);
    let mut chunk = Chunk::default();
    let mut resent = 0;
    while let Some(row) = rows.try_next().await? {
        chunk.events.push(event(&row)?);
        let account_ids = repeat_n(row.account_id, row.waiting_seqs.len());
        chunk.waiting_account_ids.extend(account_ids);
        chunk.waiting_seqs.extend(row.waiting_seqs);
        if chunk.events.len() == CHUNK_EVENTS {
            resent += write(&mut writing, topic, take(&mut chunk)).await?;
        }
    }
    resent += write(&mut writing, topic, chunk).await?;
    writing.commit().await?;
    Ok(resent)
}

async fn write(writing: &mut PgConnection, topic: &str, chunk: Chunk) -> Result<u64, ResendError> {
    let (seqs, account_ids) = (&chunk.waiting_seqs, &chunk.waiting_account_ids);
    let removed = remove_unmarked(writing, seqs, account_ids).await?;
    expect_rows(seqs.len(), removed)?;
    let written = outbox::insert(writing, topic, &chunk.events).await?;
    expect_rows(chunk.events.len(), written)?;
    Ok(written)
}

fn expect_rows(expected: usize, found: u64) -> Result<(), ResendError> {
    if usize::try_from(found) == Ok(expected) {
        Ok(())
    } else {
        Err(ResendError::Rows { expected, found })
    }
}

/// The event as the api made it: it is all in the transaction's row, and its id is the
/// transaction's.
fn event(row: &sql::WaitingTransaction) -> Result<OutboxEvent, ResendError> {
    let transaction_id = TransactionId(row.id);
    let unusable = |why: String| ResendError::Transaction(transaction_id, why);
    let amount = AmountCents::try_from(row.amount_cents);
    let payload = TransactionCreated {
        schema_version: SCHEMA_VERSION,
        transaction_id,
        account_id: AccountId(row.account_id),
        amount_cents: amount.map_err(|error: NotPositive| unusable(error.to_string()))?,
        currency: parse::<Currency, UnknownCurrency>(&row.currency).map_err(unusable)?,
        transaction_type: parse::<TransactionType, UnknownName>(&row.transaction_type)
            .map_err(unusable)?,
    };
    Ok(OutboxEvent {
        event_id: EventId::from(transaction_id),
        account_id: payload.account_id,
        transaction_id,
        event_type: EventType::TransactionCreated,
        payload: serde_json::to_string(&payload)?,
    })
}

fn parse<T: std::str::FromStr<Err = E>, E: std::fmt::Display>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: E| format!("{text}: {error}"))
}

/// What an operator may expect of so many events written again.
#[must_use]
pub fn expectation(resent: u64, topic: &str) -> String {
    format!(
        "{resent} events were written to the outbox for topic {topic}; a running publisher sends \
         them in this order. Those whose first sending was not lost are recognised by their event \
         id and skipped. A transaction whose event was sent after the loss, or by a publisher that \
         ran meanwhile, may be posted before these."
    )
}
