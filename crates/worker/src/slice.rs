//! A slice: events applied together in one transaction.

mod error;
mod plan;
mod sql;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use common::{
    db::{ErrorClass, bounded},
    types::TransactionCreated,
};
pub use error::{ApplyError, Verdict};
use plan::{Facts, decide};
pub use plan::{Inapplicable, Outcome};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    event::Event,
    ledger::Posting,
    posting::{self, PostError, Posted},
};

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
    let posted = match post(&mut transaction, results_topic, events, &outcomes, true).await {
        Ok(posted) => posted,
        Err(PostError::Database(error)) if ErrorClass::of(&error) == ErrorClass::Data => {
            // Closed before, or worse.
            transaction.rollback().await?;
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    if !posted.as_planned() {
        transaction.rollback().await?;
        return Ok(None);
    }
    transaction.commit().await?;
    let since = locked.elapsed();
    for (event, outcome) in events.iter().zip(&mut outcomes) {
        outcome.grow_older(posted.age(event.transaction.transaction_id) + since);
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
    let posted = post(&mut transaction, results_topic, events, &outcomes, false).await?;
    if !posted.as_planned() {
        return Err(ApplyError::RowsAffected {
            planned: posted.planned,
            written: posted.written,
        });
    }
    transaction.commit().await?;
    let since = read.elapsed();
    for outcome in &mut outcomes {
        outcome.grow_older(since);
    }
    Ok(outcomes)
}

/// Writes down what was decided to be posted.
async fn post(
    connection: &mut PgConnection,
    results_topic: &str,
    events: &[Event],
    outcomes: &[Outcome],
    closes_events: bool,
) -> Result<Posted, PostError> {
    let both = events.iter().zip(outcomes);
    let postings: Vec<(TransactionCreated, Posting)> = both
        .filter_map(|(event, outcome)| Some((event.transaction, outcome.posting()?)))
        .collect();
    posting::post(connection, results_topic, &postings, closes_events).await
}

/// Ordered, so that two workers that share accounts wait for each other and never in a circle.
fn accounts_of(events: &[Event]) -> Vec<Uuid> {
    let ids = events.iter().map(|event| event.transaction.account_id.0);
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}
