//! A database that is there and takes nothing.

use serde_json::Value;
use sqlx::PgPool;

use crate::harness::{Answer, Api, eventually, item};

async fn pay(api: &Api, account: &str) -> Answer {
    api.post("/v1/transactions", &item(account, "k")).await
}

fn assert_nothing_was_accepted(answer: &Answer) {
    let problem = answer.assert_problem(503, "unavailable");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("No transaction was accepted."),
        "{detail}"
    );
    assert_eq!(answer.header("retry-after"), "1");
}

/// Changes a setting of sessions that are opened from now on.
async fn alter_database(pool: &PgPool, change: &str) {
    let statements = format!(
        "BEGIN READ WRITE;
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {change}', current_database()); END $$;
         COMMIT"
    );
    let change = sqlx::raw_sql(sqlx::AssertSqlSafe(statements));
    change.execute(pool).await.unwrap();
}

async fn end_sessions(pool: &PgPool) {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = 'postonce-api'",
    )
    .execute(pool)
    .await
    .unwrap();
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_database_that_takes_no_writes_is_not_ready_and_is_written_to_when_it_does(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    eventually("ready", async || api.readiness.reasons().is_empty()).await;
    alter_database(&api.pool, "SET default_transaction_read_only = on").await;
    end_sessions(&api.pool).await;
    eventually("the api says that it is read-only", async || {
        let reasons = api.readiness.reasons();
        let reason = reasons.get("database");
        reason.is_some_and(|reason| reason.contains("can be read and not written"))
    })
    .await;
    // Of a session that was cut off the outcome is not known.
    let refused = loop {
        let answer = pay(&api, &account).await;
        if answer.status != 504 {
            break answer;
        }
    };
    assert_nothing_was_accepted(&refused);
    let path = format!("/v1/accounts/{account}");
    eventually("it is read", async || api.get(&path).await.status == 200).await;
    assert_eq!(api.written().await, (0, 0));

    alter_database(&api.pool, "RESET default_transaction_read_only").await;
    eventually("ready again", async || api.readiness.reasons().is_empty()).await;
    eventually("it is paid", async || {
        matches!(pay(&api, &account).await.status.as_u16(), 200 | 202)
    })
    .await;
    assert_eq!(api.written().await, (1, 1));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_database_without_room_is_as_one_that_is_away(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    for full in ["53100", "53200", "53300"] {
        let refuse = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE 'no room' USING ERRCODE = '{full}'; END $$;
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON outbox_events
             FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(refuse))
            .execute(&api.pool)
            .await
            .unwrap();
        let refused = pay(&api, &account).await;
        assert_nothing_was_accepted(&refused);
    }
    assert_eq!(api.written().await, (0, 0));
    let mend = sqlx::raw_sql("DROP TRIGGER refuse ON outbox_events");
    mend.execute(&api.pool).await.unwrap();
    let paid = pay(&api, &account).await;
    assert_eq!(
        (paid.status.as_u16(), &paid.json()["status"]),
        (202, &Value::from("PENDING"))
    );
    api.end().await;
}
