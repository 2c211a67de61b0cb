//! Rules broken on purpose, in builds for the fault suite alone.

use std::time::Duration;

use common::faults::{Mutation, mutated};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Facts, sql};
use crate::event::Event;

/// How long the mutant that does not lock leaves others between its reading and its writing.
const UNLOCKED: Duration = Duration::from_millis(20);

/// The mutant that posts whatever comes makes open again what was closed or final.
pub(super) async fn forget_what_is_closed(
    connection: &mut PgConnection,
    events: &[&Event],
) -> Result<(), sqlx::Error> {
    if !mutated(Mutation::IgnoreClosed) {
        return Ok(());
    }
    let ids: Vec<Uuid> = events.iter().map(|event| event.id().0).collect();
    for statement in [
        "DELETE FROM processed_events WHERE event_id = ANY($1)",
        "UPDATE transactions SET status = 'PENDING', failure_reason = NULL, processed_at = NULL
          WHERE id = ANY($1) AND status <> 'PENDING'",
    ] {
        sqlx::query(statement)
            .bind(&ids)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The mutant that does not lock accounts lets the locks go as soon as it has read.
pub(super) async fn read_accounts(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Facts, sqlx::Error> {
    let mut savepoint = connection.begin().await?;
    let facts = sql::lock_accounts(&mut savepoint, ids).await?;
    savepoint.rollback().await?;
    sleep(UNLOCKED).await;
    Ok(facts)
}
