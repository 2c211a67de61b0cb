//! A slice: events applied together in one transaction.

mod changes;
mod error;
mod plan;
mod sql;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use changes::Changes;
pub use changes::Rows;
use common::{
    db::bounded,
    outbox::{self, OutboxEvent},
    types::{EventId, EventType, TransactionCreated, TransactionFailed, TransactionProcessed},
};
pub use error::{ApplyError, Verdict};
use plan::{Facts, decide};
pub use plan::{Inapplicable, Outcome};
use sqlx::{Connection, PgConnection, PgPool};

use crate::{event::Event, ledger::Posting};

/// Applies events in one transaction, in their order, and answers what became of each. It is
/// committed when this returns, and nothing is written if it fails. A connection that takes longer
/// than the limit counts as dead, and is closed.
///
/// What makes this right holds under both levels. The accounts' locks come first. Under READ
/// COMMITTED every later statement sees all that earlier holders did. Under SERIALIZABLE the
/// snapshot is older than the wait for a lock, and who waited is told by 40001: the locking of a row
/// that was updated meanwhile raises it, and so does ON CONFLICT DO NOTHING where it meets a row
/// that the snapshot does not show. Behind that stand the status guard, the CHECKs and the unique
/// keys.
///
/// # Errors
/// [`ApplyError::verdict`] says what to do about it.
pub async fn apply(
    pool: &PgPool,
    limit: Duration,
    results_topic: &str,
    events: &[Event],
) -> Result<Vec<Outcome>, ApplyError> {
    bounded(pool, limit, async |connection| {
        apply_on(connection, results_topic, events).await
    })
    .await
}

async fn apply_on(
    connection: &mut PgConnection,
    results_topic: &str,
    events: &[Event],
) -> Result<Vec<Outcome>, ApplyError> {
    let mut transaction = connection.begin().await?;
    let facts = read(&mut transaction, events).await?;
    let read = Instant::now();
    let unseen = sql::close_events(&mut transaction, events).await?;
    let mut outcomes = decide(events, facts, &unseen)?;
    let postings: Vec<(&Event, Posting)> = events
        .iter()
        .zip(&outcomes)
        .filter_map(|(event, outcome)| Some((event, outcome.posting()?)))
        .collect();
    if !postings.is_empty() {
        write(&mut transaction, results_topic, &postings).await?;
    }
    transaction.commit().await?;
    let since = read.elapsed();
    for outcome in &mut outcomes {
        outcome.grow_older(since);
    }
    Ok(outcomes)
}

async fn read(connection: &mut PgConnection, events: &[Event]) -> Result<Facts, sqlx::Error> {
    let accounts: HashSet<_> = events
        .iter()
        .map(|event| event.transaction.account_id)
        .collect();
    // Ordered, so that two workers that share accounts wait for each other and never in a circle.
    let mut accounts: Vec<_> = accounts.into_iter().map(|account| account.0).collect();
    accounts.sort_unstable();
    Ok(Facts {
        accounts: sql::lock_accounts(connection, &accounts).await?,
        transactions: sql::transactions(connection, events).await?,
    })
}

async fn write(
    connection: &mut PgConnection,
    results_topic: &str,
    postings: &[(&Event, Posting)],
) -> Result<(), ApplyError> {
    let changes = Changes::of(postings);
    let planned = changes.rows();
    let written = sql::post(connection, &changes).await?;
    if written != planned {
        return Err(ApplyError::RowsAffected { planned, written });
    }
    let results = postings
        .iter()
        .map(|(event, posting)| result(&event.transaction, *posting))
        .collect::<Result<Vec<_>, _>>()?;
    let written = outbox::insert(connection, results_topic, &results).await?;
    if usize::try_from(written) != Ok(results.len()) {
        return Err(ApplyError::ResultsAffected {
            planned: results.len(),
            written,
        });
    }
    Ok(())
}

/// The event that tells how a transaction ended.
fn result(
    transaction: &TransactionCreated,
    posting: Posting,
) -> Result<OutboxEvent, serde_json::Error> {
    let transaction = *transaction;
    let (event_type, payload) = match posting {
        Posting::Applied(entry) => (
            EventType::TransactionProcessed,
            serde_json::to_string(&TransactionProcessed {
                transaction,
                entry_no: entry.entry_no,
                balance_after_cents: entry.balance_after_cents,
            })?,
        ),
        Posting::Rejected(failure_reason) => (
            EventType::TransactionFailed,
            serde_json::to_string(&TransactionFailed {
                transaction,
                failure_reason,
            })?,
        ),
    };
    Ok(OutboxEvent {
        event_id: EventId::new(),
        account_id: transaction.account_id,
        transaction_id: transaction.transaction_id,
        event_type,
        payload,
    })
}
