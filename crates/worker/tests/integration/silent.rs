//! Connections whose other end says nothing any more.

use std::time::Duration;

use common::{admin::Readiness, db::Isolation};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use worker::{
    failure::{Class, classify},
    health::Health,
    housekeeping::prune,
    probe::Probe,
    slice::{self, Expected},
};

use crate::support::{proxy::Proxy, *};

/// Long for this database, and short for a test.
const LIMIT: Duration = Duration::from_secs(1);

/// A pool of one connection, which a lost permit would end.
fn pool_of_one(proxy: &Proxy, pool: &PgPool) -> PgPool {
    let mut config = config(pool, Isolation::Serializable);
    config.database_url = proxy.options(pool).into();
    config.database.database_connections_max = 1;
    config.pool()
}

/// Silences the pool's connection while it waits for work.
async fn silence(proxy: &Proxy, pool: &PgPool) {
    eventually("the connection is back in its pool", async || {
        pool.num_idle() == 1
    })
    .await;
    proxy.silence();
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn attempts_that_time_out_cost_no_place_in_the_pool(pool: PgPool) {
    let proxy = Proxy::to(&pool).await;
    let worker = pool_of_one(&proxy, &pool);
    let account = account(&pool, 0).await;
    for round in 1..=3 {
        let event = accept(&pool, account, CREDIT, 1).await;
        apply(&worker, &[event]).await.unwrap();
        silence(&proxy, &worker).await;
        let event = accept(&pool, account, CREDIT, 1).await;
        let error = slice::apply(&worker, LIMIT, &topics(), &items(&[&event]), Expected::New)
            .await
            .unwrap_err();
        assert_eq!(classify(&error), Class::Away, "{error}");
        apply(&worker, &[event]).await.unwrap();
        assert_eq!(balance(&pool, account).await.0, 2 * round);
    }
    worker.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn pruning_that_times_out_costs_no_place_in_the_pool(pool: PgPool) {
    let proxy = Proxy::to(&pool).await;
    let worker = pool_of_one(&proxy, &pool);
    for _ in 0..2 {
        prune(&worker, PATIENCE, Duration::ZERO, 7).await.unwrap();
        silence(&proxy, &worker).await;
        prune(&worker, LIMIT, Duration::ZERO, 7).await.unwrap_err();
    }
    prune(&worker, PATIENCE, Duration::ZERO, 7).await.unwrap();
    worker.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_probe_that_times_out_is_unready_and_the_next_one_has_a_connection(pool: PgPool) {
    let proxy = Proxy::to(&pool).await;
    let worker = pool_of_one(&proxy, &pool);
    let probe = Probe::Database {
        pool: worker.clone(),
        limit: LIMIT,
    };
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    let side = Health::new(readiness.component("database")).needed_side();
    let watching = tokio::spawn(probe.watch(side, stop.clone()));
    let is_ready = async || readiness.reasons().is_empty();
    eventually("ready", is_ready).await;
    for _ in 0..2 {
        silence(&proxy, &worker).await;
        eventually("the silence is noticed", async || !is_ready().await).await;
        eventually("another connection answers", is_ready).await;
    }
    stop.cancel();
    watching.await.unwrap();
    worker.close().await;
}
