//! A slice: events applied together in one transaction.

mod changes;
mod error;
mod plan;
mod sql;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use changes::Changes;
pub use changes::Rows;
use common::{
    db::{ErrorClass, bounded},
    outbox::OutboxEvent,
    types::{EventId, EventType, TransactionCreated, TransactionFailed, TransactionProcessed},
};
pub use error::{ApplyError, Verdict};
use plan::{Facts, decide};
pub use plan::{Inapplicable, Outcome};
use sql::Results;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

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
/// What is expected of the events decides how it begins, and changes no outcome.
///
/// # Errors
/// [`ApplyError::verdict`] says what to do about it.
pub async fn apply(
    pool: &PgPool,
    limit: Duration,
    results_topic: &str,
    events: &[Event],
    expected: Expected,
) -> Result<Vec<Outcome>, ApplyError> {
    bounded(pool, limit, async |connection| {
        if expected == Expected::New
            && let Some(outcomes) = apply_new(connection, results_topic, events).await?
        {
            return Ok(outcomes);
        }
        apply_any(connection, results_topic, events).await
    })
    .await
}

/// What is expected of a slice's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// None was closed before, and each says what its transaction's row says. That is nearly always
    /// so, and then neither transactions nor closed events need to be read before they are written,
    /// which costs a tenth less or more (docs/performance.md).
    New,
    /// Anything.
    Any,
}

/// Applies events that are as expected, or nothing: then none is the answer.
///
/// It decides from the events' own words, and the statement that writes compares them with the rows,
/// which are the authority.
async fn apply_new(
    connection: &mut PgConnection,
    results_topic: &str,
    events: &[Event],
) -> Result<Option<Vec<Outcome>>, ApplyError> {
    let mut transaction = connection.begin().await?;
    let accounts = sql::lock_accounts(&mut transaction, &accounts_of(events)).await?;
    let locked = Instant::now();
    let (facts, unseen) = plan::taken_at_their_word(accounts, events);
    let Ok(mut outcomes) = decide(events, facts, &unseen) else {
        transaction.rollback().await?;
        return Ok(None);
    };
    let postings = postings(events, &outcomes);
    let changes = Changes::of(&postings);
    let results = Results {
        topic: results_topic,
        events: &results(&postings)?,
    };
    let posted = match sql::post(&mut transaction, &changes, results, true).await {
        Ok(posted) => posted,
        Err(error) if ErrorClass::of(&error) != ErrorClass::Data => return Err(error.into()),
        Err(_closed_before_or_worse) => {
            transaction.rollback().await?;
            return Ok(None);
        }
    };
    if posted.rows != changes.rows() {
        transaction.rollback().await?;
        return Ok(None);
    }
    transaction.commit().await?;
    let since = locked.elapsed();
    for (event, outcome) in events.iter().zip(&mut outcomes) {
        let age = posted.ages_seconds.get(&event.transaction.transaction_id);
        outcome.grow_older(Duration::try_from_secs_f64(*age.unwrap_or(&0.0)).unwrap_or_default());
        outcome.grow_older(since);
    }
    Ok(Some(outcomes))
}

/// Applies events whatever they turn out to be.
async fn apply_any(
    connection: &mut PgConnection,
    results_topic: &str,
    events: &[Event],
) -> Result<Vec<Outcome>, ApplyError> {
    let mut transaction = connection.begin().await?;
    let facts = Facts {
        accounts: sql::lock_accounts(&mut transaction, &accounts_of(events)).await?,
        transactions: sql::transactions(&mut transaction, events).await?,
    };
    let read = Instant::now();
    let unseen = sql::close_events(&mut transaction, events).await?;
    let mut outcomes = decide(events, facts, &unseen)?;
    let postings = postings(events, &outcomes);
    if !postings.is_empty() {
        let changes = Changes::of(&postings);
        let planned = changes.rows();
        let results = Results {
            topic: results_topic,
            events: &results(&postings)?,
        };
        let posted = sql::post(&mut transaction, &changes, results, false).await?;
        let written = posted.rows;
        if written != planned {
            return Err(ApplyError::RowsAffected { planned, written });
        }
    }
    transaction.commit().await?;
    let since = read.elapsed();
    for outcome in &mut outcomes {
        outcome.grow_older(since);
    }
    Ok(outcomes)
}

/// The events that are posted, and how.
fn postings<'a>(events: &'a [Event], outcomes: &[Outcome]) -> Vec<(&'a Event, Posting)> {
    let both = events.iter().zip(outcomes);
    both.filter_map(|(event, outcome)| Some((event, outcome.posting()?)))
        .collect()
}

/// Ordered, so that two workers that share accounts wait for each other and never in a circle.
fn accounts_of(events: &[Event]) -> Vec<Uuid> {
    let ids = events.iter().map(|event| event.transaction.account_id.0);
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The events that tell how transactions ended.
fn results(postings: &[(&Event, Posting)]) -> Result<Vec<OutboxEvent>, serde_json::Error> {
    postings
        .iter()
        .map(|(event, posting)| result(&event.transaction, *posting))
        .collect()
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
