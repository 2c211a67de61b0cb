//! From the topic to the ledger, on a real broker and a real database.

use std::time::Duration;

use common::{
    outbox::CHANNEL,
    types::{Lane, LaneSet, TransactionId},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::{PgPool, postgres::PgListener};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use worker::{consume::Intake, event::Event};

use crate::support::{kafka::*, *};

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
async fn a_commit_with_result_events_tells_the_publisher_their_lanes(pool: PgPool) {
    let mut publisher = PgListener::connect_with(&pool).await.unwrap();
    publisher.listen(CHANNEL).await.unwrap();
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    stream
        .publish(0, &accept(&pool, account, CREDIT, 1).await)
        .await;
    let worker = Running::start(&stream.config(&pool));
    let hint = timeout(PATIENCE, publisher.recv())
        .await
        .expect("a hint comes")
        .unwrap();
    let lanes = LaneSet::from_iter([Lane::of(account)]);
    assert_eq!(hint.payload().parse(), Ok(lanes));
    assert_eq!(results(&pool).await.len(), 1);
    worker.stop().await;
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
    eventually("the other posts the rest", async || {
        balances(&pool, &accounts).await == 120
    })
    .await;
    second.stop().await;
    assert_books_balance(&pool).await;
    assert_posted_in_order(&pool, &events).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn while_a_full_slice_is_worked_on_the_next_one_is_read_and_no_more(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    for _ in 0..20 {
        let event = accept(&pool, account, CREDIT, 1).await;
        stream.publish(0, &event).await;
    }
    let mut intake = Intake::join(&stream.config(&pool).kafka, 5).unwrap();
    let never = CancellationToken::new();
    let read = timeout(PATIENCE, async {
        while intake.collect(&never).await.items.len() < 5 {}
        while intake.held() < 5 {
            intake.serve_during(sleep(Duration::from_millis(10))).await;
        }
    });
    read.await.expect("a slice is read ahead");
    intake.serve_during(sleep(Duration::from_millis(10))).await;
    assert_eq!(intake.held(), 5);
    assert_eq!(intake.collect(&never).await.items.len(), 5);
    intake.leave().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_is_read_while_a_full_slice_waits_is_posted_behind_it_in_order(pool: PgPool) {
    let stream = Stream::new(2).await;
    let accounts = [account(&pool, 0).await, account(&pool, 0).await];
    let mut events = Vec::new();
    for number in 0..60 {
        let at = number % 2;
        let event = accept(&pool, accounts[at], CREDIT, 1).await;
        stream.publish(i32::try_from(at).unwrap(), &event).await;
        events.push(event);
    }
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM accounts WHERE id = ANY($1) FOR UPDATE")
        .bind(accounts.map(|account| account.0))
        .execute(&mut *holder)
        .await
        .unwrap();
    let mut config = stream.config(&pool);
    config.slices.slice_events_max = 5;
    let worker = Running::start(&config);
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'worker'
                      AND wait_event_type = 'Lock'";
    eventually("a slice waits for its accounts", async || {
        count(&pool, waiting).await == 1
    })
    .await;
    holder.rollback().await.unwrap();
    eventually("all are posted", async || {
        balances(&pool, &accounts).await == 60
    })
    .await;
    worker.stop().await;
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
