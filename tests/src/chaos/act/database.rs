//! What somebody else does in the database.

use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use super::Done;
use crate::chaos::{fleet::Fleet, poison::insist, seed::Dice};

/// Rights that a worker cannot do without, and how they come back.
const GRANTS: [(&str, &str); 3] = [
    (
        "REVOKE UPDATE (balance_cents) ON accounts FROM postonce_worker",
        "GRANT UPDATE (balance_cents) ON accounts TO postonce_worker",
    ),
    (
        "REVOKE INSERT (entry_no) ON ledger_entries FROM postonce_worker",
        "GRANT INSERT (entry_no) ON ledger_entries TO postonce_worker",
    ),
    (
        "REVOKE SELECT ON outbox_events FROM postonce_publisher",
        "GRANT SELECT ON outbox_events TO postonce_publisher",
    ),
];

/// A session that has read something and says no more: vacuum can remove nothing behind its snapshot.
pub(super) async fn idle_transaction(fleet: &Fleet, lasts: Duration) -> Result<Done, String> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM accounts";
    let Ok(mut session) = fleet.stack.database.session().await else {
        return Ok(Done::Skipped);
    };
    if sqlx::raw_sql(begin).execute(&mut session).await.is_err() {
        return Ok(Done::Skipped);
    }
    sleep(lasts).await;
    // The server may have been killed meanwhile, and the transaction with it.
    let still_there = sqlx::raw_sql("SELECT 1").execute(&mut session).await;
    Ok(Done::if_so(still_there.is_ok()))
}

pub(super) async fn locked_account(
    fleet: &Fleet,
    account: Uuid,
    lasts: Duration,
) -> Result<Done, String> {
    let Ok(mut lock) = fleet.stack.database.superuser().begin().await else {
        return Ok(Done::Skipped);
    };
    let locked = sqlx::query("SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE")
        .bind(account)
        .execute(&mut *lock)
        .await;
    if locked.is_err() {
        return Ok(Done::Skipped);
    }
    sleep(lasts).await;
    Ok(Done::if_so(lock.rollback().await.is_ok()))
}

pub(super) async fn revoked_grant(
    fleet: &Fleet,
    lasts: Duration,
    mut dice: Dice,
) -> Result<Done, String> {
    let Some(_turn) = fleet.grants_turn() else {
        return Ok(Done::Skipped);
    };
    let (revoke, grant) = GRANTS[dice.index(GRANTS.len())];
    insist(fleet.stack.database.superuser(), revoke).await;
    sleep(lasts).await;
    insist(fleet.stack.database.superuser(), grant).await;
    Ok(Done::Yes)
}
