//! Writing what was decided: entries, balances, final states and the events that tell of them.

mod changes;
mod results;
mod sql;

use std::{collections::HashMap, time::Duration};

use changes::Changes;
pub use changes::Rows;
use common::types::{TransactionCreated, TransactionId};
use sql::Results;
use sqlx::PgConnection;
use thiserror::Error;

use crate::ledger::Posting;

/// Why postings could not be written.
#[derive(Debug, Error)]
pub(crate) enum PostError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("a result event could not be written as JSON")]
    Payload(#[from] serde_json::Error),
}

/// What was written.
pub(crate) struct Posted {
    /// Rows as decided.
    pub(crate) planned: Rows,
    /// Rows as written. The caller rolls back where they differ: a transaction was final, or its row
    /// says something else.
    pub(crate) written: Rows,
    ages_seconds: HashMap<TransactionId, f64>,
}

impl Posted {
    /// Whether the database did what was decided.
    pub(crate) fn as_planned(&self) -> bool {
        self.planned == self.written
    }

    /// How long ago a transaction was accepted, by the database's clock, when it was written.
    pub(crate) fn age(&self, id: TransactionId) -> Duration {
        let age = self.ages_seconds.get(&id).copied().unwrap_or_default();
        Duration::try_from_secs_f64(age).unwrap_or_default()
    }
}

/// Writes postings, in their order, in one statement, behind the locks of their accounts. With
/// `closes_events` it closes their events, too; one that was closed before is a unique violation.
pub(crate) async fn post(
    connection: &mut PgConnection,
    results_topic: &str,
    postings: &[(TransactionCreated, Posting)],
    closes_events: bool,
) -> Result<Posted, PostError> {
    let changes = Changes::of(postings);
    let planned = changes.rows();
    if postings.is_empty() {
        return Ok(Posted {
            planned,
            written: planned,
            ages_seconds: HashMap::new(),
        });
    }
    let results = Results {
        topic: results_topic,
        events: &results::results(postings)?,
    };
    let written = sql::post(connection, &changes, results, closes_events).await?;
    Ok(Posted {
        planned,
        written: written.rows,
        ages_seconds: written.ages_seconds,
    })
}
