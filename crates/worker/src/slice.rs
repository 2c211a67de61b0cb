//! A slice: records worked off together in one transaction.

mod aside;
mod error;
#[cfg(feature = "faults")]
mod mutant;
mod plan;
mod sql;

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use common::{
    db::{ErrorClass, bounded},
    faults,
    types::{EventId, TransactionCreated},
};
pub use error::ApplyError;
use plan::{Facts, Standing, decide};
pub use plan::{Inapplicable, Outcome};
pub(crate) use sql::currency;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    config::KafkaSettings,
    event::{Event, Item},
    failure::{Class, classify},
    ledger::Posting,
    parked::FirstFailure,
    posting::{self, PostError, Posted},
};

/// Works records off in one transaction, in their order, and answers what became of each. It is
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
/// [`classify`] says what to do about it.
pub async fn apply(
    pool: &PgPool,
    limit: Duration,
    kafka: &KafkaSettings,
    items: &[Item],
    expected: Expected,
) -> Result<Vec<Outcome>, ApplyError> {
    bounded(pool, limit, async |connection| {
        let applied = async {
            if expected == Expected::New
                && let Some(outcomes) = apply_new(connection, kafka, items).await?
            {
                return Ok(outcomes);
            }
            apply_any(connection, kafka, items, None).await
        };
        let applied = applied.await;
        forget_statements(connection, applied.as_ref().err()).await;
        applied
    })
    .await
}

/// Works off a record that could not be posted by itself: if that is still to be done its event is
/// parked, at the head of its account's queue with its first failure, or behind others.
///
/// # Errors
/// [`classify`] says what to do about it.
pub async fn park(
    pool: &PgPool,
    limit: Duration,
    kafka: &KafkaSettings,
    item: &Item,
    failure: &FirstFailure,
) -> Result<Outcome, ApplyError> {
    let items = std::slice::from_ref(item);
    let outcomes = bounded(pool, limit, async |connection| {
        let parked = apply_any(connection, kafka, items, Some(failure)).await;
        forget_statements(connection, parked.as_ref().err()).await;
        parked
    });
    Ok(outcomes.await?.remove(0))
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
/// which are the authority. Only events behind a queue are read: what is parked is not compared by
/// anything else.
async fn apply_new(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    items: &[Item],
) -> Result<Option<Vec<Outcome>>, ApplyError> {
    let mut transaction = connection.begin().await?;
    let events = events_of(items);
    let facts = lock_accounts(&mut transaction, &events).await?;
    let locked = Instant::now();
    let (facts, unseen) = taken_as_expected(&mut transaction, &events, facts).await?;
    let outcomes = decide(&events, facts, &unseen);
    if outcomes.iter().any(Outcome::is_dead) {
        transaction.rollback().await?;
        return Ok(None);
    }
    let mut outcomes = plan::of_records(items, outcomes);
    let posted = match post(&mut transaction, kafka, items, &outcomes, true).await {
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
    let aside = aside::write(&mut transaction, kafka, items, &mut outcomes, None).await?;
    faults::point("worker.before_commit");
    transaction.commit().await?;
    faults::point("worker.after_commit");
    aside.committed();
    let since = locked.elapsed();
    for (item, outcome) in items.iter().zip(&mut outcomes) {
        if let Item::Event(event) = item {
            outcome.grow_older(posted.age(event.transaction.transaction_id) + since);
        }
    }
    Ok(Some(outcomes))
}

/// Takes events at their word, and as not closed before; those behind a queue are read, and nothing is if
/// there are none.
async fn taken_as_expected(
    connection: &mut PgConnection,
    events: &[&Event],
    mut facts: Facts,
) -> Result<(Facts, HashSet<EventId>), sqlx::Error> {
    let is_queued = |event: &Event| facts.queues.contains(&event.transaction.account_id);
    let (queued, free): (Vec<&Event>, Vec<&Event>) =
        events.iter().partition(|event| is_queued(event));
    facts.transactions = plan::taken_at_their_word(&free);
    let mut unseen: HashSet<EventId> = free.iter().map(|event| event.id()).collect();
    if !queued.is_empty() {
        let read = sql::transactions(connection, &queued).await?;
        facts.transactions.extend(read);
        unseen.extend(open_of(connection, &queued).await?);
    }
    Ok((facts, unseen))
}

/// Works records off whatever they turn out to be. With a first failure nothing is posted: what would
/// be is parked instead.
async fn apply_any(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    items: &[Item],
    failure: Option<&FirstFailure>,
) -> Result<Vec<Outcome>, ApplyError> {
    let mut transaction = connection.begin().await?;
    let events = events_of(items);
    let mut facts = lock_accounts(&mut transaction, &events).await?;
    // A queue that is there already has a head.
    let head = failure.filter(|_| facts.queues.is_empty());
    if failure.is_some() {
        facts.queues.extend(facts.accounts.keys());
    }
    facts.transactions = sql::transactions(&mut transaction, &events).await?;
    let read = Instant::now();
    let unseen = close(&mut transaction, &events, &facts).await?;
    let outcomes = decide(&events, facts, &unseen);
    let mut outcomes = plan::of_records(items, outcomes);
    let posted = post(&mut transaction, kafka, items, &outcomes, false).await?;
    if !posted.as_planned() {
        return Err(ApplyError::RowsAffected {
            planned: posted.planned,
            written: posted.written,
        });
    }
    let aside = aside::write(&mut transaction, kafka, items, &mut outcomes, head).await?;
    faults::point("worker.before_commit");
    transaction.commit().await?;
    faults::point("worker.after_commit");
    aside.committed();
    let since = read.elapsed();
    for outcome in &mut outcomes {
        outcome.grow_older(since);
    }
    Ok(outcomes)
}

/// Closes the events that are to be posted, and answers which events were not closed before. What is
/// parked stays open, and what claims another transaction than its own must not close that one's event.
async fn close(
    connection: &mut PgConnection,
    events: &[&Event],
    facts: &Facts,
) -> Result<HashSet<EventId>, sqlx::Error> {
    let (mut open, mut queued) = (Vec::new(), Vec::new());
    for event in events {
        match plan::standing(event, facts) {
            Ok(Standing::Open) => open.push(*event),
            Ok(Standing::Queued) => queued.push(*event),
            Ok(Standing::Over) | Err(_) => {}
        }
    }
    let mut unseen = sql::close_events(connection, &open).await?;
    if !queued.is_empty() {
        unseen.extend(open_of(connection, &queued).await?);
    }
    Ok(unseen)
}

/// Those of the events that are not closed.
async fn open_of(
    connection: &mut PgConnection,
    events: &[&Event],
) -> Result<HashSet<EventId>, sqlx::Error> {
    let closed = sql::closed(connection, events).await?;
    let ids = events.iter().map(|event| event.id());
    Ok(ids.filter(|id| !closed.contains(id)).collect())
}

/// Writes down what was decided to be posted.
async fn post(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    items: &[Item],
    outcomes: &[Outcome],
    closes_events: bool,
) -> Result<Posted, PostError> {
    let both = items.iter().zip(outcomes);
    let postings: Vec<(TransactionCreated, Posting)> = both
        .filter_map(|(item, outcome)| Some((item.event()?.transaction, outcome.posting()?)))
        .collect();
    posting::post(connection, &kafka.results_topic, &postings, closes_events).await
}

fn events_of(items: &[Item]) -> Vec<&Event> {
    items.iter().filter_map(Item::event).collect()
}

/// Locks the events' accounts, in order, so that two workers that share some wait for each other and
/// never in a circle.
async fn lock_accounts(
    connection: &mut PgConnection,
    events: &[&Event],
) -> Result<Facts, sqlx::Error> {
    let ids = events.iter().map(|event| event.transaction.account_id.0);
    let ids: Vec<Uuid> = ids.collect::<BTreeSet<_>>().into_iter().collect();
    #[cfg(feature = "faults")]
    mutant::forget_what_is_closed(connection, events).await?;
    #[cfg(feature = "faults")]
    if faults::mutated(faults::Mutation::NoAccountLock) {
        return mutant::read_accounts(connection, &ids).await;
    }
    let facts = sql::lock_accounts(connection, &ids).await?;
    faults::point("worker.locked");
    Ok(facts)
}

/// Behind what is wrong with the system the connection forgets its prepared statements: one of them may
/// be what is wrong, as it remembers a schema that was changed meanwhile.
pub(crate) async fn forget_statements(connection: &mut PgConnection, error: Option<&ApplyError>) {
    if error.is_some_and(|error| classify(error) == Class::Systemic) {
        // If this fails, too, the connection is broken, and the pool throws it away.
        let _ = connection.clear_cached_statements().await;
    }
}
