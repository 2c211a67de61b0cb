use common::types::AccountId;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    log::{Log, record_count},
    support::{PARTITIONS, World, account_in, eventually, payloads, set_topic},
};

/// A JSON string that no compression makes smaller than half of it.
fn noise(bytes: usize) -> String {
    let mut text: String = std::iter::repeat_with(|| Uuid::new_v4().simple().to_string())
        .take(bytes / 32 + 1)
        .collect();
    text.truncate(bytes);
    format!(r#"{{"noise": "{text}"}}"#)
}

async fn raise_limit(world: &World, bytes: &str) {
    for topic in [&world.transactions, &world.results] {
        set_topic(topic, "max.message.bytes", bytes).await;
    }
}

/// Rows before and behind one that is too large, in lane 5, and rows in other lanes, two of which
/// share lane 5's partition.
async fn append_with_culprit(world: &World, culprit: String) -> (AccountId, Vec<Uuid>, i64) {
    let stopped = account_in(5);
    let mut events = world.append(stopped, &payloads(2)).await;
    events.extend(world.append(stopped, &[culprit]).await);
    let seq = sqlx::query_scalar("SELECT max(seq) FROM outbox_events")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    events.extend(world.append(stopped, &payloads(40)).await);
    for lane in [4, 6, 13, 21] {
        world.append(account_in(lane), &payloads(20)).await;
    }
    (stopped, events, seq)
}

async fn stops_its_lane_only_and_heals(world: World, culprit: String) {
    let (stopped, events, seq) = append_with_culprit(&world, culprit).await;
    let publisher = world.publisher(&[]);
    let others_done = || async { world.count("status = 'PENDING' AND lane <> 5").await == 0 };
    eventually("the other lanes are published", others_done).await;
    publisher
        .unready("lanes", &format!("lane 5 is stopped at outbox seq {seq}"))
        .await;
    let told = format!("seq = {seq} AND publish_attempts >= 2 AND last_error LIKE '%too large%'");
    eventually("the row says why, and is tried again", || async {
        world.count(&told).await == 1
    })
    .await;
    let before = format!("lane = 5 AND seq < {seq} AND status = 'PUBLISHED'");
    assert_eq!(
        world.count(&before).await,
        2,
        "the rows before it are published"
    );
    assert_eq!(world.count("lane = 5 AND status = 'PENDING'").await, 41);
    // Other lanes, one of the same partition among them, do not notice the tries.
    world.append(account_in(13), &payloads(20)).await;
    eventually("the other lanes go on", others_done).await;

    let mut log = Log::of(&world.transactions);
    log.read_all(&events[..2]).await;
    raise_limit(&world, "1048588").await;
    world.all_published().await;
    publisher.ready().await;
    log.read_all(&events).await;
    assert_eq!(
        log.first_occurrences(stopped),
        events,
        "nothing passed the refused row"
    );
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_too_large_to_send_stops_its_lane_only_and_heals(pool: PgPool) {
    let world = World::new(pool);
    world
        .create_topics(PARTITIONS, &[("max.message.bytes", "4000")])
        .await;
    stops_its_lane_only_and_heals(world, noise(5_000)).await;
}

/// The topic's limit is below the smallest that librdkafka can be told, so the broker itself says
/// no, to a whole batch.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_the_broker_refuses_stops_its_lane_only_and_heals(pool: PgPool) {
    let world = World::new(pool);
    world
        .create_topics(PARTITIONS, &[("max.message.bytes", "600")])
        .await;
    stops_its_lane_only_and_heals(world, noise(550)).await;
}

/// A broker takes any sequence number from a producer it does not know yet, so a new producer's
/// second request could be stored although its first was refused.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn nothing_passes_a_refused_row_that_is_a_producers_first(pool: PgPool) {
    let world = World::new(pool);
    world
        .create_topics(PARTITIONS, &[("max.message.bytes", "600")])
        .await;
    let account = account_in(5);
    let mut events = world.append(account, &[noise(550)]).await;
    events.extend(world.append(account, &payloads(200)).await);
    let publisher = world.publisher(&[]);
    publisher.unready("lanes", "lane 5 is stopped").await;
    assert_eq!(record_count(&world.transactions), 0);
    // Only an acknowledgement marks a row, and there was none.
    assert_eq!(world.pending().await, 201);
    raise_limit(&world, "1048588").await;
    world.all_published().await;
    publisher.stop().await;
    let mut log = Log::of(&world.transactions);
    log.read_all(&events).await;
    assert_eq!(log.first_occurrences(account), events);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_with_an_unusable_type_or_topic_stops_its_lane_only(pool: PgPool) {
    let world = World::new(pool);
    let accounts = [account_in(1), account_in(2), account_in(3)];
    for account in accounts {
        world.append(account, &payloads(2)).await;
    }
    let spoil = "UPDATE outbox_events SET event_type = 'transaction.lost' WHERE lane = 1";
    sqlx::query(spoil).execute(&world.pool).await.unwrap();
    let spoil = "UPDATE outbox_events SET topic = 'elsewhere' WHERE lane = 2";
    sqlx::query(spoil).execute(&world.pool).await.unwrap();
    let publisher = world.publisher(&[]);
    publisher
        .unready("lanes", "its type transaction.lost is unknown")
        .await;
    publisher
        .unready("lanes", "its topic elsewhere is neither")
        .await;
    eventually("the sound lane is published", || async {
        world.pending().await == 4
    })
    .await;
    let mend = "UPDATE outbox_events SET event_type = 'transaction.created', topic = $1";
    sqlx::query(mend)
        .bind(&world.transactions)
        .execute(&world.pool)
        .await
        .unwrap();
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
}
