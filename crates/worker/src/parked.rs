//! Parked events: those that failed by themselves, and behind each the later ones of its account.

mod sql;

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use common::types::EventId;
use sqlx::PgConnection;

use crate::{event::Event, slice::ApplyError};

/// The first attempt of an event that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstFailure {
    /// What was wrong.
    pub error: String,
    /// How long to wait before it is tried again.
    pub pause: Duration,
}

/// Parks events at the end of their accounts' queues, in their order, behind the accounts' locks, and
/// answers which of them were not parked before. `head` is the failure of the event that begins a queue;
/// without one they all wait behind others. The caller commits.
///
/// # Errors
/// The database's; or rows were not as the locks promise.
pub(crate) async fn park(
    connection: &mut PgConnection,
    topic: &str,
    events: &[&Event],
    head: Option<&FirstFailure>,
) -> Result<HashSet<EventId>, ApplyError> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let done = sql::park(connection, topic, events, head).await?;
    let parked: HashSet<EventId> = done.event_ids.into_iter().map(EventId).collect();
    let accounts: BTreeSet<_> = events
        .iter()
        .filter(|event| parked.contains(&event.id()))
        .map(|event| event.transaction.account_id)
        .collect();
    for (table, planned, written) in [
        ("transactions", parked.len(), done.transactions),
        ("accounts", accounts.len(), done.accounts),
    ] {
        ApplyError::check(table, planned, written)?;
    }
    Ok(parked)
}
