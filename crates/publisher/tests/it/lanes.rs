use common::types::AccountId;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    log::{Log, record_count},
    support::{World, eventually, payloads},
};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn two_publishers_split_the_lanes_and_one_takes_over(pool: PgPool) {
    let world = World::new(pool);
    let first = world.publisher(&[]);
    world.all_lanes_held_by(1).await;
    let second = world.publisher(&[]);
    world.all_lanes_held_by(2).await;
    assert!(
        world
            .lane_holders()
            .await
            .values()
            .all(|lanes| *lanes == 32)
    );
    first.kill().await;
    world.all_lanes_held_by(1).await;
    let account = AccountId::new();
    world.append(account, &payloads(10)).await;
    world.all_published().await;
    second.stop().await;
    assert!(world.lane_holders().await.is_empty());
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn two_publishers_send_nothing_twice_and_keep_the_order(pool: PgPool) {
    let world = World::new(pool);
    let (first, second) = (world.publisher(&[]), world.publisher(&[]));
    world.all_lanes_held_by(2).await;
    let holders = world.lane_holders().await;
    let accounts: Vec<AccountId> = (0..40).map(|_| AccountId::new()).collect();
    let mut sent: Vec<Vec<Uuid>> = vec![Vec::new(); accounts.len()];
    for _ in 0..10 {
        for (account, events) in accounts.iter().zip(&mut sent) {
            events.extend(world.append(*account, &payloads(5)).await);
        }
    }
    world.all_published().await;
    // A machine that stands still for seconds takes the lanes from a publisher that has sent rows and not
    // marked them. Only then may there be repeats.
    if world.lane_holders().await == holders {
        assert_eq!(record_count(&world.transactions), 2000);
    }
    let mut log = Log::of(&world.transactions);
    log.read_all(&sent.concat()).await;
    for (account, events) in accounts.iter().zip(&sent) {
        assert_eq!(&log.first_occurrences(*account), events);
    }
    first.stop().await;
    second.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn lanes_change_hands_under_load_without_loss_or_disorder(pool: PgPool) {
    let world = World::new(pool);
    let accounts: Vec<AccountId> = (0..40).map(|_| AccountId::new()).collect();
    let mut sent: Vec<Vec<Uuid>> = vec![Vec::new(); accounts.len()];
    let more = ["--publish-lane-rows-max=5"];
    let first = world.publisher(&more);
    first.ready().await;
    let mut others = Vec::new();
    for round in 0..6 {
        for (account, events) in accounts.iter().zip(&mut sent) {
            events.extend(world.append(*account, &payloads(20)).await);
        }
        if round % 2 == 0 {
            others.push(world.publisher(&more));
        } else {
            others.pop().unwrap().kill().await;
        }
    }
    world.all_published().await;
    first.stop().await;
    let mut log = Log::of(&world.transactions);
    log.read_all(&sent.concat()).await;
    for (account, events) in accounts.iter().zip(&sent) {
        assert_eq!(&log.first_occurrences(*account), events);
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_publisher_that_loses_its_lock_session_gets_its_lanes_back(pool: PgPool) {
    let world = World::new(pool);
    let publisher = world.publisher(&[]);
    publisher.ready().await;
    world.all_lanes_held_by(1).await;
    let before: Vec<i32> = world.lane_holders().await.into_keys().collect();
    sqlx::query("SELECT pg_terminate_backend($1)")
        .bind(before[0])
        .execute(&world.pool)
        .await
        .unwrap();
    eventually("another session holds the lanes", || async {
        let now = world.lane_holders().await;
        now.len() == 1 && !now.contains_key(&before[0])
    })
    .await;
    world.append(AccountId::new(), &payloads(10)).await;
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_lane_that_another_session_holds_is_left_alone(pool: PgPool) {
    let world = World::new(pool);
    let publisher = world.publisher(&[]);
    publisher.ready().await;
    world.all_lanes_held_by(1).await;
    let keys: (i32, i32) = sqlx::query_as(
        "SELECT classid::bigint::integer, objid::bigint::integer FROM pg_locks
          WHERE locktype = 'advisory' AND objid = 5
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    publisher.stop().await;
    let mut other = world.pool.acquire().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock($1, $2)")
        .bind(keys.0)
        .bind(keys.1)
        .execute(&mut *other)
        .await
        .unwrap();
    let (held, free) = (crate::support::account_in(5), crate::support::account_in(6));
    world.append(held, &payloads(3)).await;
    world.append(free, &payloads(3)).await;
    let publisher = world.publisher(&[]);
    eventually("the free lane is sent", || async {
        world.pending().await == 3
    })
    .await;
    assert_eq!(world.count("status = 'PENDING' AND lane = 5").await, 3);
    sqlx::query("SELECT pg_advisory_unlock($1, $2)")
        .bind(keys.0)
        .bind(keys.1)
        .execute(&mut *other)
        .await
        .unwrap();
    world.all_published().await;
    publisher.stop().await;
}
