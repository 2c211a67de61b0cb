//! What stops a worker: an event that cannot be applied, or an error that fails them all.

use common::types::TransactionId;
use sqlx::PgPool;
use worker::worker::Halt;

use crate::support::{kafka::*, proxy::Proxy, *};

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
async fn what_fails_every_event_stops_the_worker_and_blames_none(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 1).await;
    stream.publish(0, &event).await;
    let mut config = stream.config(&pool);
    // A role that may not post.
    let forbidden = (*pool.connect_options())
        .clone()
        .options([("role", "postonce_api")]);
    config.database_url = forbidden.into();
    let mut stepper = Stepper::join(&config);
    let halt = stepper.halt().await;
    assert_eq!((halt.place(), halt.event_id()), (None, None));
    assert!(halt.to_string().contains("42501"), "{halt}");
    assert!(stepper.readiness.reasons().contains_key("ledger"));
    stepper.leave().await;
    assert_eq!(stream.committed(0).await, None);

    let mut mended = Stepper::join(&stream.config(&pool));
    mended.consume(1).await;
    mended.leave().await;
    assert_eq!(balance(&pool, account).await, (1, 1));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_member_does_not_halt_at_a_record_that_is_anothers_by_now(pool: PgPool) {
    let stream = Stream::new(2).await;
    let account = account(&pool, 0).await;
    // In the first member's hand is the garbage of the partition that the assignor moves.
    let event = accept(&pool, account, CREDIT, 1).await;
    stream.publish(0, &event).await;
    stream.publish_garbage(0).await;
    let mut proxy = Proxy::to(&pool).await;
    let mut config = stream.config(&pool);
    config.database_url = proxy.options(&pool).into();
    config.database.database_acquire_timeout_ms = 200;
    proxy.cut();
    let mut cut_off = Stepper::join(&config);
    let readiness = cut_off.readiness.clone();
    let others = async {
        eventually("the first member tries and has no database", async || {
            readiness.reasons().contains_key("database")
        })
        .await;
        stream.publish_garbage(1).await;
        let mut sound = Stepper::join(&stream.config(&pool));
        let halt = sound.halt().await;
        proxy.mend().await;
        (sound, halt)
    };
    let (first, (sound, second)) = tokio::join!(cut_off.halt(), others);
    let partition = |halt: &Halt| halt.place().map(|place| place.partition);
    assert_ne!(partition(&first), partition(&second), "{first}, {second}");
    cut_off.leave().await;
    sound.leave().await;
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
