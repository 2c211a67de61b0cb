use std::future::ready;

use api::intake::{IntakeError, IntakeSettings, Outcome, Overloaded};
use common::{
    outbox::CHANNEL,
    types::{Lane, LaneSet},
};
use sqlx::{PgPool, postgres::PgListener};
use tokio::time::timeout;

use crate::support::{Fixture, PATIENCE, credit, settings};

fn one_lane() -> IntakeSettings {
    IntakeSettings {
        intake_lanes: 1,
        ..settings()
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_full_queue_refuses_and_writes_nothing_of_what_it_refused(pool: PgPool) {
    let it = Fixture::with(pool, &one_lane()).await;
    let stalled = it.stall().await;
    let first = it.submit_later(credit(it.account, "first"));
    it.wait_for_stalled(1).await;
    let items = |from: usize, count: usize| {
        (from..from + count)
            .map(|n| credit(it.account, &format!("k{n}")))
            .collect::<Vec<_>>()
    };
    let intake = it.intake.clone();
    let mut waiting = Box::pin(async move { intake.submit_batch(items(0, 999)).await });
    // Polled once, the batch has its place in the queue.
    tokio::select! {
        biased;
        answers = &mut waiting => panic!("nothing can be written now: {answers:?}"),
        () = ready(()) => {}
    }
    assert_eq!(
        it.intake.submit_batch(items(2_000, 2)).await,
        Err(Overloaded)
    );
    stalled.rollback().await.unwrap();
    assert!(matches!(first.await.unwrap(), Ok(Outcome::Created(_))));
    let answers = waiting.await.unwrap();
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(Outcome::Created(_))))
    );
    let refused: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM transactions WHERE idempotency_key IN ('k2000', 'k2001')
",
    )
    .fetch_one(&it.pool)
    .await
    .unwrap();
    assert_eq!(refused, 0);
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_caller_that_goes_away_before_its_row_is_taken_leaves_nothing(pool: PgPool) {
    let it = Fixture::with(pool, &one_lane()).await;
    let stalled = it.stall().await;
    let first = it.submit_later(credit(it.account, "first"));
    it.wait_for_stalled(1).await;
    let gone = it.submit_later(credit(it.account, "gone"));
    let kept = it.submit_later(credit(it.account, "kept"));
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    stalled.rollback().await.unwrap();
    first.await.unwrap().unwrap();
    kept.await.unwrap().unwrap();
    let pool = it.close().await;
    let keys: Vec<String> =
        sqlx::query_scalar("SELECT idempotency_key FROM transactions ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(keys, ["first", "kept"]);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_caller_that_goes_away_after_its_row_was_taken_has_paid_once(pool: PgPool) {
    let it = Fixture::with(pool, &one_lane()).await;
    let stalled = it.stall().await;
    let gone = it.submit_later(credit(it.account, "k"));
    it.wait_for_stalled(1).await;
    gone.abort();
    stalled.rollback().await.unwrap();
    assert!(matches!(
        it.submit(credit(it.account, "k")).await,
        Outcome::Replayed(_)
    ));
    assert_eq!(it.count("transactions").await, 1);
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_deadline_tells_whether_the_row_was_taken(pool: PgPool) {
    let settings = IntakeSettings {
        intake_deadline_ms: 3_000,
        ..one_lane()
    };
    let it = Fixture::with(pool, &settings).await;
    let stalled = it.stall().await;
    let taken = it.submit_later(credit(it.account, "taken"));
    it.wait_for_stalled(1).await;
    let waiting = it.submit_later(credit(it.account, "waiting"));
    assert_eq!(taken.await.unwrap(), Err(IntakeError::OutcomeUnknown));
    assert_eq!(waiting.await.unwrap(), Err(IntakeError::NotWritten));
    stalled.rollback().await.unwrap();
    let pool = it.close().await;
    let keys: Vec<String> = sqlx::query_scalar("SELECT idempotency_key FROM transactions")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(keys, ["taken"]);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn closing_writes_what_waits(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let requests: Vec<_> = (0..300)
        .map(|n| it.submit_later(credit(it.account, &format!("k{n}"))))
        .collect();
    let pool = it.close().await;
    for request in requests {
        assert!(matches!(request.await.unwrap(), Ok(Outcome::Created(_))));
    }
    let written: i64 = sqlx::query_scalar("SELECT count(*) FROM transactions")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(written, 300);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_commit_tells_the_publisher_the_lanes_of_its_rows(pool: PgPool) {
    let mut publisher = PgListener::connect_with(&pool).await.unwrap();
    publisher.listen(CHANNEL).await.unwrap();
    let fixture = Fixture::new(pool).await;
    fixture.submit(credit(fixture.account, "k")).await;
    let hint = timeout(PATIENCE, publisher.recv())
        .await
        .expect("a hint comes")
        .unwrap();
    let lanes = LaneSet::from_iter([Lane::of(fixture.account)]);
    assert_eq!(hint.payload().parse(), Ok(lanes));
    fixture.close().await;
}
