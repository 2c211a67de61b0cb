use api::intake::{IntakeError, IntakeSettings, Outcome, Refusal};
use common::types::AccountId;
use sqlx::PgPool;

use crate::support::{Fixture, credit, open_account, settings};

/// Breaks the connection of the one statement that the intake waits for.
async fn cut(pool: &PgPool) {
    let cut: i64 = sqlx::query_scalar(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
          WHERE application_name = 'intake-test' AND wait_event_type = 'Lock'
            AND datname = current_database()",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(cut, 1);
}

/// Lets the database refuse every transaction of an account, as a broken rule would.
async fn refuse_account(pool: &PgPool, account: AccountId) {
    let statements = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'refused for a test'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON transactions FOR EACH ROW
         WHEN (NEW.account_id = '{account}') EXECUTE FUNCTION refuse();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
        .execute(pool)
        .await
        .unwrap();
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn one_bad_row_never_fails_its_neighbours(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let bad = open_account(&it.pool, "EUR").await;
    refuse_account(&it.pool, bad).await;
    let items = (0..40)
        .map(|n| credit(if n == 17 { bad } else { it.account }, &format!("k{n:02}")))
        .collect();
    let answers = it.intake.submit_batch(items).await.unwrap();
    for (n, answer) in answers.iter().enumerate() {
        if n == 17 {
            assert_eq!(*answer, Err(IntakeError::Failed));
        } else {
            assert!(matches!(answer, Ok(Outcome::Created(_))), "{n}: {answer:?}");
        }
    }
    let keys: Vec<String> = sqlx::query_scalar(
        "SELECT t.idempotency_key FROM outbox_events o JOIN transactions t ON t.id = o.event_id
          ORDER BY o.seq",
    )
    .fetch_all(&it.pool)
    .await
    .unwrap();
    assert_eq!(keys.len(), 39);
    assert!(
        keys.is_sorted(),
        "halving keeps an account's order: {keys:?}"
    );
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_connection_cut_while_a_statement_runs_is_retried_and_writes_once(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let stalled = it.stall().await;
    let request = it.submit_later(credit(it.account, "k"));
    it.wait_for_stalled(1).await;
    cut(&it.pool).await;
    stalled.rollback().await.unwrap();
    assert!(matches!(request.await.unwrap(), Ok(Outcome::Created(_))));
    assert_eq!(it.count("transactions").await, 1);
    assert_eq!(it.count("outbox_events").await, 1);
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_missing_table_fails_requests_without_writing(pool: PgPool) {
    let it = Fixture::new(pool).await;
    sqlx::raw_sql("ALTER TABLE outbox_events RENAME TO outbox_events_away")
        .execute(&it.pool)
        .await
        .unwrap();
    let answer = it.intake.submit(credit(it.account, "k")).await;
    assert_eq!(answer, Err(IntakeError::Failed));
    sqlx::raw_sql("ALTER TABLE outbox_events_away RENAME TO outbox_events")
        .execute(&it.pool)
        .await
        .unwrap();
    assert!(matches!(
        it.submit(credit(it.account, "k")).await,
        Outcome::Created(_)
    ));
    assert_eq!(it.count("transactions").await, 1);
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_refusal_behind_a_broken_connection_is_not_said_to_be_certain(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let mut stalled = it.stall().await;
    let request = it.submit_later(credit(it.account, "k"));
    it.wait_for_stalled(1).await;
    // What was sent on this connection may be committed, for all that its sender knows.
    cut(&it.pool).await;
    sqlx::query("UPDATE accounts SET status = 'SUSPENDED'")
        .execute(&mut *stalled)
        .await
        .unwrap();
    stalled.commit().await.unwrap();
    assert_eq!(request.await.unwrap(), Err(IntakeError::OutcomeUnknown));
    let refused = it.submit(credit(it.account, "k")).await;
    assert_eq!(refused, Outcome::Refused(Refusal::AccountSuspended));
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn while_connections_are_refused_a_request_is_told_that_nothing_was_written(pool: PgPool) {
    let settings = IntakeSettings {
        intake_deadline_ms: 6_000,
        ..settings()
    };
    // Nothing listens there.
    let away = (*pool.connect_options()).clone().port(1);
    let it = Fixture::reached_by(away, pool, &settings).await;
    let requests = ["taken", "waiting"].map(|key| it.submit_later(credit(it.account, key)));
    for request in requests {
        assert_eq!(request.await.unwrap(), Err(IntakeError::NotWritten));
    }
    it.close().await;
}
