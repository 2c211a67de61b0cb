//! Pruning of closed events.

use std::time::Duration;

use crate::support::*;
use common::db::Isolation;
use sqlx::PgPool;
use uuid::{NoContext, Timestamp, Uuid};
use worker::housekeeping::prune;

const DAY: Duration = Duration::from_hours(24);

/// A closed event that was made and closed so many days ago.
async fn closed(pool: &PgPool, made_days_ago: u64, closed_days_ago: u64) -> Uuid {
    let now = Uuid::now_v7().get_timestamp().unwrap().to_unix().0;
    let made = Timestamp::from_unix(NoContext, now - made_days_ago * DAY.as_secs(), 0);
    let id = Uuid::new_v7(made);
    sqlx::query(
        "INSERT INTO processed_events (event_id, account_id, transaction_id, processed_at)
         VALUES ($1, gen_random_uuid(), $1, now() - make_interval(days => $2))",
    )
    .bind(id)
    .bind(i32::try_from(closed_days_ago).unwrap())
    .execute(pool)
    .await
    .unwrap();
    id
}

async fn left(pool: &PgPool) -> Vec<Uuid> {
    sqlx::query_scalar("SELECT event_id FROM processed_events ORDER BY event_id")
        .fetch_all(pool)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn only_events_past_their_retention_are_forgotten(pool: PgPool) {
    let worker = worker_pool(&pool, Isolation::Serializable);
    for _ in 0..7 {
        closed(&pool, 40, 31).await;
    }
    // Made long ago and closed lately: the topic may bring it again.
    let late = closed(&pool, 40, 29).await;
    let young = closed(&pool, 29, 29).await;
    let new = closed(&pool, 0, 0).await;

    assert_eq!(prune(&worker, PATIENCE, 30 * DAY, 3).await.unwrap(), 7);
    assert_eq!(left(&pool).await, [late, young, new]);
    assert_eq!(prune(&worker, PATIENCE, 30 * DAY, 3).await.unwrap(), 0);
    assert_eq!(left(&pool).await, [late, young, new]);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn pruning_reads_the_primary_key_from_its_oldest_row_on(pool: PgPool) {
    let worker = worker_pool(&pool, Isolation::Serializable);
    for _ in 0..3 {
        closed(&pool, 31, 31).await;
    }
    for _ in 0..300 {
        closed(&pool, 0, 0).await;
    }
    assert_eq!(prune(&worker, PATIENCE, 30 * DAY, 100).await.unwrap(), 3);
    worker.close().await;
    let read = "SELECT coalesce(idx_tup_read, 0) FROM pg_stat_user_indexes
                 WHERE indexrelname = 'processed_events_pkey'";
    // The counts arrive when the session that made them ends.
    eventually("the counts arrive", async || count(&pool, read).await > 0).await;
    assert!(
        count(&pool, read).await < 20,
        "young rows were read to remove old ones"
    );
}
