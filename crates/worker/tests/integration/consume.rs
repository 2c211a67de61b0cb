//! From the topic to the ledger, on a real broker and a real database.

use std::time::{Duration, Instant};

use crate::support::{kafka::*, proxy::Proxy, *};
use common::types::{AccountId, TransactionId};
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::PgPool;
use worker::{event::Event, worker::Halt};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn published_events_are_posted_and_then_their_offsets_committed(pool: PgPool) {
    let stream = Stream::new(2).await;
    let account = account(&pool, 0).await;
    let credit = accept(&pool, account, CREDIT, 500).await;
    let debit = accept(&pool, account, DEBIT, 200).await;
    stream.publish(1, &credit).await;
    stream.publish(1, &debit).await;

    let mut stepper = Stepper::join(&stream.config(&pool));
    stepper.consume(2).await;
    assert_eq!(balance(&pool, account).await, (300, 2));
    assert!(stepper.readiness.reasons().is_empty());
    // Leaving waits for the commit.
    stepper.leave().await;
    assert_eq!(stream.committed(1).await, Some(2));
    assert_eq!(stream.committed(0).await, None);
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_group_rewound_to_the_start_changes_nothing(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 50).await;
    for cents in 1..=40 {
        let kind = if cents % 3 == 0 { CREDIT } else { DEBIT };
        stream
            .publish(0, &accept(&pool, account, kind, cents).await)
            .await;
    }
    let config = stream.config(&pool);
    let mut stepper = Stepper::join(&config);
    stepper.consume(40).await;
    stepper.leave().await;
    let once = state(&pool).await;
    assert_eq!(stream.committed(0).await, Some(40));

    stream.set_committed(0, 0).await;
    let mut stepper = Stepper::join(&config);
    stepper.consume(40).await;
    stepper.leave().await;

    assert_eq!(state(&pool).await, once);
    assert_eq!(stream.committed(0).await, Some(40));
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_forged_event_stops_the_worker_and_only_what_precedes_it_is_applied(pool: PgPool) {
    let stream = Stream::new(2).await;
    let (victim, other) = (account(&pool, 0).await, account(&pool, 0).await);
    let before = accept(&pool, victim, CREDIT, 1).await;
    let genuine = accept(&pool, victim, CREDIT, 10).await;
    let mut forged = genuine;
    forged.transaction.amount_cents = 1_000_000.try_into().unwrap();
    let behind = accept(&pool, victim, CREDIT, 100).await;
    let elsewhere = accept(&pool, other, CREDIT, 7).await;
    for (partition, event) in [(0, &before), (0, &forged), (0, &behind), (1, &elsewhere)] {
        stream.publish(partition, event).await;
    }

    let halt = run_into_halt(
        &pool,
        &stream,
        |halt| offset(halt) == Some(1),
        "amount_cents",
    )
    .await;
    assert_eq!(halt.event_id(), Some(forged.id()));
    assert_eq!(balance(&pool, victim).await, (1, 1));
    assert_eq!(balance(&pool, other).await, (7, 1));
    assert_eq!(status(&pool, &behind).await.0, "PENDING");
    assert_eq!(stream.committed(0).await, Some(1));
    assert_eq!(stream.committed(1).await, Some(1));
    assert_books_balance(&pool).await;

    // A restart tries it again, and does not pass it either.
    run_into_halt(
        &pool,
        &stream,
        |halt| offset(halt) == Some(1),
        "amount_cents",
    )
    .await;
    assert_eq!(stream.committed(0).await, Some(1));
    assert_eq!(balance(&pool, victim).await, (1, 1));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_event_of_no_transaction_stops_the_worker(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let mut invented = accept(&pool, account, CREDIT, 1).await;
    invented.transaction.transaction_id = TransactionId::new();
    stream.publish(0, &invented).await;
    run_into_halt(
        &pool,
        &stream,
        |halt| offset(halt) == Some(0),
        "no such transaction",
    )
    .await;
    assert_eq!(balance(&pool, account).await, (0, 0));
    assert_eq!(stream.committed(0).await, None);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_unreadable_record_stops_the_worker_behind_what_precedes_it(pool: PgPool) {
    let stream = Stream::new(2).await;
    let (first, second) = (account(&pool, 0).await, account(&pool, 0).await);
    stream
        .publish(0, &accept(&pool, first, CREDIT, 1).await)
        .await;
    stream
        .publish(1, &accept(&pool, second, CREDIT, 2).await)
        .await;
    let config = stream.config(&pool);
    let mut stepper = Stepper::join(&config);
    stepper.consume(2).await;
    stepper.leave().await;

    let garbage = stream.publish_garbage(0).await;
    stream
        .publish(0, &accept(&pool, first, CREDIT, 4).await)
        .await;
    let halt = run_into_halt(
        &pool,
        &stream,
        |halt| offset(halt) == Some(garbage),
        "ce_specversion",
    )
    .await;
    assert_eq!(halt.event_id(), None);
    assert_eq!(stream.committed(0).await, Some(1));
    assert_eq!(balance(&pool, first).await, (1, 1));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_unknown_schema_version_stops_the_worker(pool: PgPool) {
    let stream = Stream::new(1).await;
    let event = {
        let account = account(&pool, 0).await;
        accept(&pool, account, CREDIT, 1).await
    };
    let mut value = serde_json::to_value(event.transaction).unwrap();
    value["schema_version"] = 2.into();
    stream.publish_value(0, &event, &value.to_string()).await;
    run_into_halt(
        &pool,
        &stream,
        |halt| halt.event_id() == Some(event.id()),
        "schema version 2",
    )
    .await;
    assert_eq!(status(&pool, &event).await.0, "PENDING");
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_event_the_database_refuses_is_found_among_many(pool: PgPool) {
    let stream = Stream::new(2).await;
    let (sound, broken) = (account(&pool, 0).await, account(&pool, 0).await);
    // This account's books are broken: its first number is taken.
    sqlx::query("INSERT INTO ledger_entries VALUES ($1, 1, $2, 1, 1)")
        .bind(broken)
        .bind(TransactionId::new())
        .execute(&pool)
        .await
        .unwrap();
    for _ in 0..10 {
        stream
            .publish(0, &accept(&pool, sound, CREDIT, 1).await)
            .await;
    }
    let culprit = accept(&pool, broken, CREDIT, 1).await;
    stream.publish(0, &culprit).await;
    for _ in 0..10 {
        stream
            .publish(0, &accept(&pool, sound, CREDIT, 1).await)
            .await;
        stream
            .publish(1, &accept(&pool, sound, CREDIT, 1).await)
            .await;
    }
    let halt = run_into_halt(&pool, &stream, |halt| offset(halt) == Some(10), "23505").await;
    assert_eq!(halt.event_id(), Some(culprit.id()));
    assert_eq!(stream.committed(0).await, Some(10));
    assert_eq!(status(&pool, &culprit).await.0, "PENDING");
    let (posted, _) = balance(&pool, sound).await;
    assert_eq!(posted, 10 + stream.committed(1).await.unwrap_or(0));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn without_its_database_the_worker_waits_and_goes_on_by_itself(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let mut proxy = Proxy::to(&pool).await;
    let mut config = stream.config(&pool);
    config.database_url = proxy.options(&pool).into();
    config.database.database_acquire_timeout_ms = 200;
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
    assert_eq!(stream.committed(0).await, Some(1));

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
    let mut proxy = Proxy::to(&pool).await;
    let mut config = stream.config(&pool);
    config.database_url = proxy.options(&pool).into();
    config.database.database_acquire_timeout_ms = 200;
    proxy.cut();
    let cut_off = Running::start(&config);
    for (partition, account) in [(0, accounts[0]), (1, accounts[1])] {
        stream
            .publish(partition, &accept(&pool, account, CREDIT, 1).await)
            .await;
    }
    eventually(
        "the first member holds both and has no database",
        async || cut_off.readiness.reasons().contains_key("database"),
    )
    .await;

    // Its events leave the slice of the one and are posted by the other.
    let sound = Running::start(&stream.config(&pool));
    eventually(
        "the second member took one partition over and posted its event",
        async || balances(&pool, &accounts).await == 1,
    )
    .await;
    proxy.mend().await;
    eventually("the first posts the rest", async || {
        balances(&pool, &accounts).await == 2
    })
    .await;
    cut_off.stop().await;
    sound.stop().await;
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn two_members_share_the_partitions_and_one_takes_over_from_the_other(pool: PgPool) {
    let stream = Stream::new(4).await;
    let mut accounts = Vec::new();
    for _ in 0..4 {
        accounts.push(account(&pool, 0).await);
    }
    let config = stream.config(&pool);
    let first = Running::start(&config);
    let second = Running::start(&config);
    let mut events = Vec::new();
    for number in 0..120 {
        let at = number % 4;
        let event = accept(&pool, accounts[at], CREDIT, 1).await;
        stream.publish(i32::try_from(at).unwrap(), &event).await;
        events.push(event);
    }
    eventually("half is posted", async || {
        balances(&pool, &accounts).await >= 60
    })
    .await;
    first.stop().await;
    let left = Instant::now();
    eventually("the other posts the rest", async || {
        balances(&pool, &accounts).await == 120
    })
    .await;
    // Far below the session timeout of 10 s, after which a silent member would be given up.
    assert!(
        left.elapsed() < Duration::from_secs(8),
        "{:?}",
        left.elapsed()
    );
    second.stop().await;
    assert_books_balance(&pool).await;
    assert_posted_in_order(&pool, &events).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_log_that_lost_what_was_not_read_is_noticed(pool: PgPool) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let stream = Stream::new(2).await;
    let account = account(&pool, 0).await;
    for _ in 0..5 {
        stream
            .publish(0, &accept(&pool, account, CREDIT, 1).await)
            .await;
    }
    stream.set_committed(0, 2).await;
    stream.set_committed(1, 0).await;
    stream.delete_records(0, 4).await;

    let mut stepper = Stepper::join(&stream.config(&pool));
    stepper.consume(1).await;
    stepper.leave().await;
    let told = format!(
        "consumer_offset_out_of_range_total{{topic=\"{}\",partition=\"0\"}} 1",
        stream.topic
    );
    let scrape = metrics.render();
    assert!(scrape.contains(&told), "{scrape}");
    assert_eq!(
        scrape
            .matches("consumer_offset_out_of_range_total{")
            .count(),
        1,
        "{scrape}"
    );
}

/// Steps a worker until it halts as expected, checks what it says, and lets it leave.
async fn run_into_halt(
    pool: &PgPool,
    stream: &Stream,
    expected: impl Fn(&Halt) -> bool,
    reason: &str,
) -> Halt {
    let mut stepper = Stepper::join(&stream.config(pool));
    let halt = stepper.halt().await;
    assert!(expected(&halt), "{halt}");
    assert!(halt.to_string().contains(reason), "{halt}");
    let reasons = stepper.readiness.reasons();
    assert_eq!(reasons.get("ledger"), Some(&halt.to_string()));
    stepper.leave().await;
    halt
}

fn offset(halt: &Halt) -> Option<i64> {
    halt.place().map(|place| place.offset)
}

async fn balances(pool: &PgPool, accounts: &[AccountId]) -> i64 {
    let mut sum = 0;
    for account in accounts {
        sum += balance(pool, *account).await.0;
    }
    sum
}

async fn assert_posted_in_order(pool: &PgPool, events: &[Event]) {
    for event in events {
        let account = event.transaction.account_id;
        let posted: Vec<TransactionId> = sqlx::query_scalar(
            "SELECT transaction_id FROM ledger_entries WHERE account_id = $1 ORDER BY entry_no",
        )
        .bind(account)
        .fetch_all(pool)
        .await
        .unwrap();
        let sent = events
            .iter()
            .filter(|event| event.transaction.account_id == account);
        assert_eq!(
            posted,
            sent.map(|event| event.transaction.transaction_id)
                .collect::<Vec<_>>()
        );
    }
}
