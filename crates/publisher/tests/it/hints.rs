use std::time::Duration;

use common::{
    outbox::{CHANNEL, WakeUp},
    types::{AccountId, Lane, LaneSet},
};
use sqlx::PgPool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{World, payloads};

/// How many rows go one after another. Polls that find nothing untold become rare meanwhile: if only
/// they found rows, so many would take half an hour.
const ROWS: usize = 50;
/// How long all of them may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Publishes rows one after another, each in a lane of its own account, and each told of by `tell`.
async fn publish_one_by_one(world: &World, tell: impl AsyncFn(AccountId)) {
    let publisher = world.publisher(&["--poll-interval-max-ms=60000"]);
    publisher.ready().await;
    let rows = async {
        for _ in 0..ROWS {
            let account = AccountId::new();
            world.append(account, &payloads(1)).await;
            tell(account).await;
            world.all_published().await;
        }
    };
    timeout(PATIENCE, rows).await.expect("hints are heard");
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_hint_for_one_lane_makes_its_row_leave(pool: PgPool) {
    let world = World::new(pool);
    let token = CancellationToken::new();
    let hints = WakeUp::start((*world.pool.connect_options()).clone(), token.clone());
    publish_one_by_one(&world, async |account| {
        hints.hint(LaneSet::from_iter([Lane::of(account)]));
    })
    .await;
    token.cancel();
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_hint_that_names_no_lane_makes_every_row_leave(pool: PgPool) {
    let world = World::new(pool);
    publish_one_by_one(&world, async |_| {
        sqlx::query("SELECT pg_notify($1, '')")
            .bind(CHANNEL)
            .execute(&world.pool)
            .await
            .unwrap();
    })
    .await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn rows_are_found_without_a_hint(pool: PgPool) {
    let world = World::new(pool);
    let publisher = world.publisher(&["--poll-interval-max-ms=50"]);
    publisher.ready().await;
    for _ in 0..5 {
        world.append(AccountId::new(), &payloads(1)).await;
        world.all_published().await;
    }
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_whose_hint_was_lost_leaves_though_other_lanes_are_hinted_all_the_time(pool: PgPool) {
    let world = World::new(pool);
    let publisher = world.publisher(&["--poll-interval-max-ms=200"]);
    publisher.ready().await;
    let lost = AccountId::new();
    let others = LaneSet::ALL.without(LaneSet::from_iter([Lane::of(lost)]));
    let told = async {
        loop {
            sqlx::query("SELECT pg_notify($1, $2)")
                .bind(CHANNEL)
                .bind(others.to_string())
                .execute(&world.pool)
                .await
                .unwrap();
        }
    };
    let found = async {
        for _ in 0..5 {
            world.append(lost, &payloads(1)).await;
            world.all_published().await;
        }
    };
    tokio::select! {
        () = told => {}
        () = found => {}
    }
    publisher.stop().await;
}
