use common::types::{AccountId, Lane};
use rdkafka::Message;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    log::{Log, header, record_count},
    support::{PARTITIONS, World, eventually, payloads},
};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_event_arrives_with_its_bytes_key_headers_and_partition(pool: PgPool) {
    let world = World::new(pool);
    let publisher = world.publisher(&[]);
    let account = AccountId::new();
    // Spaces, key order, escapes and a number beyond a double: nothing is rewritten.
    let payload = r#"{ "b" :1,"a": "\u00e9é", "amount_cents":9223372036854775807 }"#.to_owned();
    let events = world.append(account, std::slice::from_ref(&payload)).await;
    let mut log = Log::of(&world.transactions);
    world.all_published().await;
    log.read_all(&events).await;
    let record = &log.records[0];
    assert_eq!(record.payload(), Some(payload.as_bytes()));
    assert_eq!(record.key(), Some(account.to_string().as_bytes()));
    assert_eq!(record.partition(), Lane::of(account).partition(PARTITIONS));
    assert_eq!(header(record, "ce_id"), events[0].to_string());
    assert_eq!(header(record, "ce_type"), "transaction.created");
    assert_eq!(header(record, "ce_source"), "/postonce");
    assert_eq!(header(record, "ce_specversion"), "1.0");
    assert_eq!(header(record, "content-type"), "application/json");
    let created_at: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT created_at FROM outbox_events")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!(header(record, "ce_time").parse(), Ok(created_at));
    publisher.stop().await;
    let marked = world
        .count("status = 'PUBLISHED' AND published_at >= created_at AND publish_attempts = 1")
        .await;
    assert_eq!(marked, 1);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn events_of_an_account_stay_in_order_across_crashes(pool: PgPool) {
    let world = World::new(pool);
    let accounts: Vec<AccountId> = (0..20).map(|_| AccountId::new()).collect();
    let mut sent: Vec<(AccountId, Vec<Uuid>)> = accounts
        .iter()
        .map(|account| (*account, Vec::new()))
        .collect();
    // Small flights make many rounds, so that each crash comes in the middle.
    let more = ["--publish-lane-rows-max=7"];
    let mut publisher = world.publisher(&more);
    for round in 0..4 {
        for (account, events) in &mut sent {
            events.extend(world.append(*account, &payloads(60)).await);
        }
        let enough = (world.pending().await - 600).max(1);
        eventually("some rows are published", || async {
            world.pending().await < enough
        })
        .await;
        if round % 2 == 0 {
            publisher.kill().await;
        } else {
            publisher.stop().await;
        }
        publisher = world.publisher(&more);
    }
    world.all_published().await;
    publisher.stop().await;
    let mut log = Log::of(&world.transactions);
    let all: Vec<Uuid> = sent.iter().flat_map(|(_, events)| events.clone()).collect();
    log.read_all(&all).await;
    for (account, events) in &sent {
        assert_eq!(&log.first_occurrences(*account), events);
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_publisher_that_is_stopped_in_good_order_sends_nothing_twice(pool: PgPool) {
    let world = World::new(pool);
    let account = AccountId::new();
    let mut events = world.append(account, &payloads(500)).await;
    for _ in 0..3 {
        let publisher = world.publisher(&["--publish-lane-rows-max=20"]);
        let before = world.pending().await;
        eventually("rows move", || async { world.pending().await < before }).await;
        publisher.stop().await;
        events.extend(world.append(account, &payloads(100)).await);
    }
    let publisher = world.publisher(&[]);
    world.all_published().await;
    publisher.stop().await;
    assert_eq!(record_count(&world.transactions), 800);
    let mut log = Log::of(&world.transactions);
    log.read_all(&events).await;
    assert_eq!(log.first_occurrences(account), events);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_that_commits_late_with_a_lower_seq_is_sent_too(pool: PgPool) {
    let world = World::new(pool);
    let publisher = world.publisher(&[]);
    let account = AccountId::new();
    let mut late = world.pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO outbox_events (account_id, event_id, aggregate_id, lane, topic, partition_key,
                                    aggregate_type, event_type, payload)
         VALUES ($1, $2, $2, $3, $4, $1::text, 'transaction', 'transaction.created', '{}')",
    )
    .bind(account)
    .bind(Uuid::nil())
    .bind(Lane::of(account).number())
    .bind(&world.transactions)
    .execute(&mut *late)
    .await
    .unwrap();
    world.append(account, &payloads(3)).await;
    eventually("the rows behind are published", || async {
        world.count("status = 'PUBLISHED'").await == 3
    })
    .await;
    late.commit().await.unwrap();
    world.all_published().await;
    assert_eq!(world.count("status = 'PUBLISHED'").await, 4);
    publisher.stop().await;
}
