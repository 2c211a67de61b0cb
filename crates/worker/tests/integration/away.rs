//! A worker whose database goes away and comes back.

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use worker::probe::Probe;

use crate::support::{kafka::*, proxy::Proxy, *};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn without_its_database_the_worker_waits_and_goes_on_by_itself(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let mut proxy = Proxy::to(&pool).await;
    let mut config = stream.config(&pool);
    config.database_url = proxy.options(&pool).into();
    config.database.database_acquire_timeout_ms = 1_000;
    let worker = Running::start(&config);

    stream
        .publish(0, &accept(&pool, account, CREDIT, 1).await)
        .await;
    eventually("the first event is posted", async || {
        balance(&pool, account).await == (1, 1)
    })
    .await;
    proxy.cut();
    stream
        .publish(0, &accept(&pool, account, CREDIT, 2).await)
        .await;
    eventually("the worker says that its database is away", async || {
        worker.readiness.reasons().contains_key("database")
    })
    .await;
    assert_eq!(balance(&pool, account).await, (1, 1));
    // The commit of its offset is not waited for by the worker either.
    eventually("the first event's offset is committed", async || {
        stream.committed(0).await == Some(1)
    })
    .await;

    proxy.mend().await;
    eventually("the second event is posted", async || {
        balance(&pool, account).await == (3, 2)
    })
    .await;
    eventually("the worker is ready again", async || {
        worker.readiness.reasons().is_empty()
    })
    .await;
    worker.stop().await;
    assert_eq!(stream.committed(0).await, Some(2));
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn connections_that_die_under_load_lose_and_repeat_nothing(pool: PgPool) {
    let stream = Stream::new(4).await;
    let mut accounts = Vec::new();
    for _ in 0..4 {
        accounts.push(account(&pool, 0).await);
    }
    let mut config = stream.config(&pool);
    config.slices.slice_events_max = 5;
    let worker = Running::start(&config);
    for number in 0..200 {
        let at = number % 4;
        let event = accept(&pool, accounts[at], CREDIT, 1).await;
        stream.publish(i32::try_from(at).unwrap(), &event).await;
        if number % 20 == 0 {
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'worker'",
            )
            .execute(&pool)
            .await
            .unwrap();
        }
    }
    let processed = "SELECT count(*) FROM transactions WHERE status = 'PROCESSED'";
    eventually("all are posted", async || {
        count(&pool, processed).await == 200
    })
    .await;
    worker.stop().await;
    for account in accounts {
        assert_eq!(balance(&pool, account).await, (50, 50));
    }
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_member_that_retries_its_slice_lets_a_rebalance_take_its_partitions(pool: PgPool) {
    let stream = Stream::new(2).await;
    let accounts = [account(&pool, 0).await, account(&pool, 0).await];
    for (partition, account) in [(0, accounts[0]), (1, accounts[1])] {
        stream
            .publish(partition, &accept(&pool, account, CREDIT, 1).await)
            .await;
    }
    let mut proxy = Proxy::to(&pool).await;
    let mut config = stream.config(&pool);
    config.database_url = proxy.options(&pool).into();
    config.database.database_acquire_timeout_ms = 1_000;
    proxy.cut();
    let mut cut_off = Stepper::join(&config);
    let readiness = cut_off.readiness.clone();

    let others = async {
        eventually("the first member tries and has no database", async || {
            readiness.reasons().contains_key("database")
        })
        .await;
        let sound = Running::start(&stream.config(&pool));
        eventually(
            "the second member took one partition over and posted its event",
            async || balances(&pool, &accounts).await == 1,
        )
        .await;
        proxy.mend().await;
        sound
    };
    // The event that the other posted has left the slice of the first: it is no repeat there.
    let (tally, sound) = tokio::join!(cut_off.consume(1), others);
    assert_eq!((tally.applied, tally.duplicate), (1, 0));
    assert_eq!(balances(&pool, &accounts).await, 2);
    cut_off.leave().await;
    sound.stop().await;
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_worker_without_its_database_ends_when_it_is_told_to(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 1).await;
    stream.publish(0, &event).await;
    let proxy = Proxy::to(&pool).await;
    proxy.cut();
    let mut config = stream.config(&pool);
    config.database_url = proxy.options(&pool).into();
    let worker = Running::start(&config);
    eventually("it tries", async || {
        worker.readiness.reasons().contains_key("database")
    })
    .await;
    worker.stop().await;
    assert_eq!(stream.committed(0).await, None);
    assert_eq!(status(&pool, &event).await.0, "PENDING");
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_database_that_can_be_read_and_not_written_is_not_ready(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let mut config = stream.config(&pool);
    config.database.database_statement_timeout_ms = 1_000;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM accounts FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let event = accept(&pool, account, CREDIT, 1).await;
    stream.publish(0, &event).await;
    let worker = Running::start(&config);
    eventually("the attempt says that it waits in vain", async || {
        worker.readiness.reasons().contains_key("database")
    })
    .await;
    let probe = Probe::Database {
        pool: pool.clone(),
        limit: PATIENCE,
    };
    let side = worker.health.needed_side();
    assert!(probe.wait(&side, &CancellationToken::new()).await);
    let reasons = worker.readiness.reasons();
    assert!(reasons.contains_key("database"), "the probe hides it");

    holder.rollback().await.unwrap();
    eventually("ready again", async || {
        worker.readiness.reasons().is_empty()
    })
    .await;
    worker.stop().await;
    assert_eq!(balance(&pool, account).await, (1, 1));
}
