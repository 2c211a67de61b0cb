//! What is wrong with the system and not with an event: the worker stands still, gives up nothing, and
//! goes on by itself when it is mended.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use worker::{config::Config, retry::Step};

use crate::support::{
    kafka::*,
    parked::{Retrier, attempts, park},
    *,
};

/// The worker's settings with its own role, whose grants a test may take away.
fn as_worker(pool: &PgPool, stream: &Stream) -> Config {
    let mut config = stream.config(pool);
    let session = (*pool.connect_options()).clone();
    config.database_url = session.options([("role", "postonce_worker")]).into();
    config
}

/// Runs a PL/pgSQL statement behind each statement that writes entries, which it sees as `written`.
async fn behind_entries(pool: &PgPool, statement: &str) {
    let trigger = format!(
        "CREATE FUNCTION behind_entries() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN {statement}; RETURN NULL; END $$;
         CREATE TRIGGER behind_entries AFTER INSERT ON ledger_entries REFERENCING NEW TABLE AS written
         FOR EACH STATEMENT EXECUTE FUNCTION behind_entries()"
    );
    let created = sqlx::raw_sql(sqlx::AssertSqlSafe(trigger));
    created.execute(pool).await.unwrap();
}

async fn given_up(pool: &PgPool) -> (i64, i64) {
    (
        count(pool, "SELECT count(*) FROM parked_events").await,
        count(pool, "SELECT count(*) FROM dead_letters").await,
    )
}

async fn unready_for(worker: &Running, reason: &str) {
    eventually("the ledger is not ready, with the reason", async || {
        let reasons = worker.readiness.reasons();
        reasons
            .get("ledger")
            .is_some_and(|told| told.contains(reason))
    })
    .await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_fails_every_event_gives_up_none_and_all_goes_on_when_it_is_mended(pool: PgPool) {
    let table = [
        (
            "REVOKE INSERT ON ledger_entries FROM postonce_worker",
            "42501",
            "GRANT SELECT, INSERT ON ledger_entries TO postonce_worker",
        ),
        (
            "ALTER TABLE accounts RENAME COLUMN balance_cents TO cents",
            "42703",
            "ALTER TABLE accounts RENAME COLUMN cents TO balance_cents",
        ),
        (
            "ALTER TABLE processed_events RENAME TO elsewhere",
            "42P01",
            "ALTER TABLE elsewhere RENAME TO processed_events",
        ),
    ];
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let worker = Running::start(&as_worker(&pool, &stream));
    let mut posted = 0;
    for (break_it, reason, mend) in table {
        let before = stream.committed(0).await;
        poison::run(&pool, break_it).await;
        for _ in 0..3 {
            stream
                .publish(0, &accept(&pool, account, CREDIT, 1).await)
                .await;
        }
        unready_for(&worker, reason).await;
        assert_eq!(given_up(&pool).await, (0, 0));
        assert_eq!(stream.committed(0).await, before);
        assert_eq!(stream.members().await, 1);

        poison::run(&pool, mend).await;
        posted += 3;
        eventually("it goes on by itself", async || {
            balance(&pool, account).await == (posted, posted)
        })
        .await;
        eventually("it is ready again", async || {
            worker.readiness.reasons().is_empty()
        })
        .await;
    }
    worker.stop().await;
    assert_eq!(given_up(&pool).await, (0, 0));
    assert_eq!(stream.committed(0).await, Some(posted));
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_worker_that_stands_still_ends_when_it_is_told_to(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 1).await;
    stream.publish(0, &event).await;
    poison::run(&pool, "REVOKE SELECT ON accounts FROM postonce_worker").await;
    let worker = Running::start(&as_worker(&pool, &stream));
    unready_for(&worker, "42501").await;
    worker.stop().await;
    assert_eq!(stream.members().await, 0);
    assert_eq!(stream.committed(0).await, None);
    assert_eq!(status(&pool, &event).await.0, "PENDING");
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_same_error_on_many_accounts_in_a_row_is_the_systems_fault(pool: PgPool) {
    poison::prepare(&pool).await;
    let stream = Stream::new(1).await;
    let mut accounts = Vec::new();
    for _ in 0..5 {
        let account = account(&pool, 0).await;
        poison::add(&pool, account.0).await;
        stream
            .publish(0, &accept(&pool, account, CREDIT, 1).await)
            .await;
        accounts.push(account);
    }
    let mut config = stream.config(&pool);
    config.failures.systemic_failures_max = 3;
    let worker = Running::start(&config);
    unready_for(&worker, "3 accounts in a row").await;
    // What was parked before it was known stays so, and nothing more is.
    assert_eq!(given_up(&pool).await, (2, 0));

    poison::heal(&pool).await;
    eventually("the others go on", async || {
        balances(&pool, &accounts).await == 3
    })
    .await;
    eventually("it is ready again", async || {
        worker.readiness.reasons().is_empty()
    })
    .await;
    worker.stop().await;
    assert_eq!(given_up(&pool).await, (2, 0));
    assert_eq!(stream.committed(0).await, Some(5));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_idle_worker_does_not_give_up_what_another_takes_for_the_systems_fault(pool: PgPool) {
    poison::prepare(&pool).await;
    let stream = Stream::new(1).await;
    let mut accounts = Vec::new();
    for _ in 0..4 {
        let account = account(&pool, 0).await;
        poison::add(&pool, account.0).await;
        stream
            .publish(0, &accept(&pool, account, CREDIT, 1).await)
            .await;
        accounts.push(account);
    }
    let mut config = stream.config(&pool);
    config.failures.systemic_failures_max = 4;
    config.failures.retries_max = 2;
    config.failures.retry_pause_first_ms = 1;
    config.failures.retry_pause_max_ms = 2;
    let busy = Running::start(&config);
    unready_for(&busy, "4 accounts in a row").await;
    assert_eq!(given_up(&pool).await, (3, 0));

    // It meets only what was parked, on too few accounts to find that out by itself.
    let mut idle = Retrier::new(&config);
    idle.until(|step| step == Step::StandingStill).await;
    for _ in 0..20 {
        assert_eq!(idle.retries.step().await, Step::StandingStill);
    }
    let told = &idle.readiness.reasons()["ledger"];
    assert!(told.contains("parked events of 3 accounts"), "{told}");
    assert_eq!(given_up(&pool).await, (3, 0));

    poison::heal(&pool).await;
    idle.drain().await;
    assert!(idle.readiness.reasons().is_empty());
    eventually("the other goes on, too", async || {
        balances(&pool, &accounts).await == 4 && busy.readiness.reasons().is_empty()
    })
    .await;
    busy.stop().await;
    assert_eq!(given_up(&pool).await, (0, 0));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn loops_that_both_stood_still_go_on_with_events_that_fail_by_themselves(pool: PgPool) {
    poison::prepare(&pool).await;
    let stream = Stream::new(1).await;
    let (parked, coming) = (account(&pool, 0).await, account(&pool, 0).await);
    for account in [parked, coming] {
        poison::add(&pool, account.0).await;
    }
    let mut config = as_worker(&pool, &stream);
    config.failures.retries_max = 100;
    let mut retrier = Retrier::new(&config);
    let event = accept(&pool, parked, CREDIT, 1).await;
    park(&pool, &[&event], Duration::ZERO).await;
    poison::run(
        &pool,
        "REVOKE INSERT ON ledger_entries FROM postonce_worker",
    )
    .await;
    assert_eq!(retrier.retries.step().await, Step::StandingStill);
    stream
        .publish(0, &accept(&pool, coming, CREDIT, 1).await)
        .await;
    let slices = retrier.failures.clone();
    let worker = Running::sharing(&config, slices.clone());
    eventually("both loops complain", async || slices.may_probe()).await;

    poison::run(&pool, "GRANT INSERT ON ledger_entries TO postonce_worker").await;
    let stop = CancellationToken::new();
    let retrying = tokio::spawn(retrier.retries.run(stop.clone()));
    eventually("both failures are written down", async || {
        given_up(&pool).await == (2, 0) && attempts(&pool).await.iter().any(|failed| *failed > 1)
    })
    .await;
    eventually("it is ready again", async || {
        retrier.readiness.reasons().is_empty()
    })
    .await;
    stop.cancel();
    retrying.await.unwrap();
    worker.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_slice_that_collides_as_a_whole_is_worked_off_in_parts(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    // A sequence counts what is rolled back, too.
    poison::run(&pool, "CREATE SEQUENCE collisions START 0 MINVALUE 0").await;
    behind_entries(
        &pool,
        "IF (SELECT count(*) FROM written) > 2 THEN
             PERFORM nextval('collisions');
             RAISE EXCEPTION 'collides' USING ERRCODE = '40001';
         END IF",
    )
    .await;
    for _ in 0..3 {
        stream
            .publish(0, &accept(&pool, account, CREDIT, 1).await)
            .await;
    }
    let worker = Running::start(&stream.config(&pool));
    eventually("all are applied", async || {
        balance(&pool, account).await == (3, 3)
    })
    .await;
    assert!(
        count(&pool, "SELECT last_value FROM collisions").await > 2,
        "they came one by one"
    );
    worker.stop().await;
    assert_eq!(stream.committed(0).await, Some(3));
    assert_eq!(given_up(&pool).await, (0, 0));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_slice_that_collides_lets_a_rebalance_take_its_partitions_and_reads_them_when_they_are_back(
    pool: PgPool,
) {
    let stream = Stream::new(2).await;
    let (stuck, sound) = (account_of(&pool, "USD", 0).await, account(&pool, 0).await);
    // A sequence counts what is rolled back, too.
    poison::run(
        &pool,
        "CREATE SEQUENCE tries;
         CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS '
         BEGIN
             IF NEW.currency = ''USD'' THEN
                 PERFORM nextval(''tries'');
                 RAISE EXCEPTION ''collides'' USING ERRCODE = ''40001'';
             END IF;
             RETURN NEW;
         END';
         CREATE TRIGGER collide BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION collide()",
    )
    .await;
    let mut event = accept(&pool, stuck, CREDIT, 1).await;
    event.transaction.currency = "USD".parse().unwrap();
    poison::run(&pool, "UPDATE transactions SET currency = 'USD'").await;
    stream.publish(0, &event).await;
    let first = Running::start(&stream.config(&pool));
    eventually("it is tried many times a second", async || {
        count(&pool, "SELECT last_value FROM tries").await > 5
    })
    .await;
    stream
        .publish(1, &accept(&pool, sound, CREDIT, 1).await)
        .await;

    // Either of them has the second partition without the first.
    let second = Running::start(&stream.config(&pool));
    eventually("the partitions are shared", async || {
        balance(&pool, sound).await == (1, 1)
    })
    .await;
    poison::run(&pool, "DROP TRIGGER collide ON accounts").await;
    eventually("the collisions end", async || {
        balance(&pool, stuck).await == (1, 1)
    })
    .await;

    // The first one was paused when it lost a partition, and is not any more when it has that one back,
    // although no slice takes so long meanwhile that it is paused and resumed again.
    second.stop().await;
    let readers = [account(&pool, 0).await, account(&pool, 0).await];
    eventually("both partitions are read", async || {
        for (partition, account) in (0..).zip(readers) {
            stream
                .publish(partition, &accept(&pool, account, CREDIT, 1).await)
                .await;
        }
        balance(&pool, readers[0]).await.0 > 0 && balance(&pool, readers[1]).await.0 > 0
    })
    .await;
    first.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn accounts_that_fail_alike_between_others_that_go_well_are_parked(pool: PgPool) {
    poison::prepare(&pool).await;
    let stream = Stream::new(1).await;
    for number in 0..9 {
        let account = account(&pool, 0).await;
        if number % 3 < 2 {
            poison::add(&pool, account.0).await;
        }
        stream
            .publish(0, &accept(&pool, account, CREDIT, 1).await)
            .await;
    }
    let mut config = stream.config(&pool);
    config.failures.systemic_failures_max = 3;
    let mut stepper = Stepper::join(&config);
    let tally = stepper.consume(9).await;
    assert_eq!((tally.applied, tally.parked), (3, 6));
    assert!(stepper.readiness.reasons().is_empty());
    stepper.leave().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_can_be_neither_posted_nor_parked_waits_and_is_not_skipped(pool: PgPool) {
    poison::prepare(&pool).await;
    let stream = Stream::new(1).await;
    let (sick, sound) = (account(&pool, 0).await, account(&pool, 0).await);
    poison::add(&pool, sick.0).await;
    poison::run(
        &pool,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                AS 'BEGIN RAISE EXCEPTION ''no room''; END';
         CREATE TRIGGER refuse BEFORE INSERT ON parked_events
                FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    for account in [sick, sound] {
        stream
            .publish(0, &accept(&pool, account, CREDIT, 1).await)
            .await;
    }
    let worker = Running::start(&stream.config(&pool));
    unready_for(&worker, "can be neither applied nor parked").await;
    unready_for(&worker, "no room").await;
    assert_eq!(stream.committed(0).await, None);
    assert_eq!(given_up(&pool).await, (0, 0));
    poison::run(&pool, "DROP TRIGGER refuse ON parked_events").await;
    eventually("the other is posted", async || {
        balance(&pool, sound).await == (1, 1)
    })
    .await;
    worker.stop().await;
    assert_eq!(given_up(&pool).await, (1, 0));
    assert_eq!(stream.committed(0).await, Some(2));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_slice_that_takes_too_long_is_applied_in_halves(pool: PgPool) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    // More than ten entries at once take far too long, however fast the machine is. Fewer take a moment, in
    // which the records behind them arrive, so that a small first slice is followed by a large one.
    behind_entries(
        &pool,
        "PERFORM pg_sleep(CASE WHEN (SELECT count(*) FROM written) > 10 THEN 60 ELSE 0.2 END)",
    )
    .await;
    for _ in 0..40 {
        stream
            .publish(0, &accept(&pool, account, CREDIT, 1).await)
            .await;
    }
    let mut config = stream.config(&pool);
    config.database.database_statement_timeout_ms = 1_500;
    let mut stepper = Stepper::join(&config);
    let tally = stepper.consume(40).await;
    assert_eq!(tally.applied, 40);
    assert!(stepper.readiness.reasons().is_empty());
    stepper.leave().await;
    assert_eq!(balance(&pool, account).await, (40, 40));
    assert_eq!(given_up(&pool).await, (0, 0));
    let scrape = metrics.render();
    assert!(
        scrape.contains("worker_slice_retries_total{class=\"too_long\"}"),
        "{scrape}"
    );
}
