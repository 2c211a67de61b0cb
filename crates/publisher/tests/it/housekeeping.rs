use std::time::Duration;

use common::types::AccountId;
use sqlx::PgPool;

use crate::{
    log::Log,
    support::{World, eventually, payloads},
};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn only_rows_published_long_ago_are_removed(pool: PgPool) {
    let world = World::new(pool);
    world.append(AccountId::new(), &payloads(2_500)).await;
    // Of ten rows each: two pending for a month, four published a month ago, the rest just now.
    sqlx::query(
        "UPDATE outbox_events SET created_at = now() - interval '30 days',
                status = CASE WHEN seq % 10 < 2 THEN 'PENDING' ELSE 'PUBLISHED' END,
                published_at = CASE WHEN seq % 10 < 2 THEN NULL
                                    WHEN seq % 10 < 6 THEN now() - interval '30 days'
                                    ELSE now() END",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let week = Duration::from_hours(7 * 24);
    assert_eq!(
        publisher::remove_old(&world.database(), week)
            .await
            .unwrap(),
        1_000
    );
    assert_eq!(world.pending().await, 500);
    assert_eq!(
        world
            .count("published_at < now() - interval '7 days'")
            .await,
        0
    );
    assert_eq!(world.count("true").await, 1_500);
    assert_eq!(
        publisher::remove_old(&world.database(), week)
            .await
            .unwrap(),
        0
    );
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_running_publisher_removes_old_rows(pool: PgPool) {
    let world = World::new(pool);
    world.append(AccountId::new(), &payloads(50)).await;
    sqlx::query(
        "UPDATE outbox_events SET created_at = now() - interval '2 h', status = 'PUBLISHED',
                                  published_at = now() - interval '2 h'",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    // The first look may come before the lanes are held; the retention of an hour spares new rows.
    world.append(AccountId::new(), &payloads(5)).await;
    let publisher = world.publisher(&["--outbox-retention=1h"]);
    eventually("old rows are gone", || async {
        world.count("true").await == 5
    })
    .await;
    world.all_published().await;
    publisher.stop().await;
    assert_eq!(world.count("true").await, 5);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn without_retention_a_row_goes_with_its_acknowledgement(pool: PgPool) {
    let world = World::new(pool);
    // Two were published before retention was switched off.
    world.append(AccountId::new(), &payloads(2)).await;
    sqlx::query("UPDATE outbox_events SET status = 'PUBLISHED', published_at = now()")
        .execute(&world.pool)
        .await
        .unwrap();
    let events = world.append(AccountId::new(), &payloads(100)).await;
    let publisher = world.publisher(&["--outbox-retention=0"]);
    eventually("the outbox is empty", || async {
        world.count("true").await == 0
    })
    .await;
    Log::of(&world.transactions).read_all(&events).await;
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn rows_are_marked_by_their_primary_key_though_the_outbox_looked_empty(pool: PgPool) {
    let world = World::new(pool);
    world.append(AccountId::new(), &payloads(2_000)).await;
    sqlx::query("UPDATE outbox_events SET status = 'PUBLISHED', published_at = now()")
        .execute(&world.pool)
        .await
        .unwrap();
    // The planner now knows many rows, and an index of pending ones that is empty.
    sqlx::query("VACUUM ANALYZE outbox_events")
        .execute(&world.pool)
        .await
        .unwrap();
    world.append(AccountId::new(), &payloads(300)).await;
    let publisher = world.publisher(&[]);
    world.all_published().await;
    publisher.stop().await;
    // The counts arrive when the session that made them ends.
    eventually("each row was looked up by its key", || async {
        let read = "SELECT idx_scan FROM pg_stat_user_indexes
                     WHERE indexrelname = 'outbox_events_pkey'";
        let scans: i64 = sqlx::query_scalar(read)
            .fetch_one(&world.pool)
            .await
            .unwrap();
        scans >= 300
    })
    .await;
}
