//! Rebuilds the events of transactions that are still PENDING, for the day a topic was lost.

mod sql;

use std::{pin::pin, time::Duration};

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

/// How many events are written in one transaction.
const CHUNK_EVENTS: usize = 1_000;

/// Why not all events were written again. Those of earlier chunks were.
#[derive(Debug, Error)]
pub enum ResendError {
    /// The database refused.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A transaction's row holds what no transaction may hold.
    #[error("transaction {0} holds an unusable value: {1}")]
    Transaction(TransactionId, String),
    /// The event could not be written as JSON.
    #[error("an event could not be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Writes the `transaction.created` events of all transactions that are PENDING and were accepted at
/// least so long ago to the outbox again, oldest first; the answer is how many.
///
/// The rows are read as one stream and written in chunks over a second connection, so that neither
/// memory nor a transaction grows with the backlog. Cut off in the middle, it may simply be run
/// again: what is sent twice is applied once.
pub async fn resend(
    database: PgConnectOptions,
    topic: &str,
    pending_older_than: Duration,
) -> Result<u64, ResendError> {
    let database = database.application_name("publisher resend");
    let mut reader = PgConnection::connect_with(&database).await?;
    let mut writer = PgConnection::connect_with(&database).await?;
    let rows = sql::pending_transactions(&mut reader, pending_older_than.as_secs_f64());
    let mut rows = pin!(rows);
    let mut chunk = Vec::with_capacity(CHUNK_EVENTS);
    let mut resent = 0;
    while let Some(row) = rows.try_next().await? {
        chunk.push(event(&row)?);
        if chunk.len() == CHUNK_EVENTS {
            resent += write(&mut writer, topic, &mut chunk).await?;
        }
    }
    resent += write(&mut writer, topic, &mut chunk).await?;
    Ok(resent)
}

async fn write(
    writer: &mut PgConnection,
    topic: &str,
    chunk: &mut Vec<OutboxEvent>,
) -> Result<u64, sqlx::Error> {
    if !chunk.is_empty() {
        outbox::insert(writer, topic, chunk).await?;
    }
    let written = chunk.len() as u64;
    chunk.clear();
    Ok(written)
}

/// The event as the api made it: it is all in the transaction's row, and its id is the
/// transaction's.
fn event(row: &sql::PendingTransaction) -> Result<OutboxEvent, ResendError> {
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
         id and skipped. A transaction accepted after the loss may have been posted before these."
    )
}
