//! Replays and discards while a worker posts for the same account.

use std::pin::pin;

use futures_util::FutureExt;
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, Transaction};

use crate::{
    harness::{Answer, Api, eventually},
    letters::{Letter, as_worker},
};

const ISOLATIONS: [&str; 2] = ["READ COMMITTED", "SERIALIZABLE"];

async fn lock_account(worker: &mut Transaction<'_, Postgres>, letter: &Letter) {
    sqlx::query("SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE")
        .bind(letter.account_id)
        .fetch_one(&mut **worker)
        .await
        .unwrap();
}

/// Posts the letter's transaction, as far as it is concerned; says whether it was not final.
async fn post(
    worker: &mut Transaction<'_, Postgres>,
    letter: &Letter,
) -> Result<bool, sqlx::Error> {
    let post =
        "UPDATE transactions SET status = 'PROCESSED', failure_reason = NULL, processed_at = now()
                 WHERE id = $1 AND account_id = $2 AND status IN ('PENDING', 'PROCESSING')";
    let post = sqlx::query(post)
        .bind(letter.transaction_id)
        .bind(letter.account_id);
    Ok(post.execute(&mut **worker).await?.rows_affected() == 1)
}

async fn act(api: &Api, letter: &Letter, action: &str) -> Answer {
    match action {
        "replay" => api.replay(letter).await,
        _ => api.discard(letter).await,
    }
}

/// Starts an action, and sees it wait for the worker's lock until the worker's end.
async fn act_behind(
    api: &Api,
    worker: Transaction<'static, Postgres>,
    letter: &Letter,
    action: &str,
) -> Answer {
    let mut acting = pin!(act(api, letter, action));
    let waits = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the action waits for the account", async || {
        assert!(acting.as_mut().now_or_never().is_none(), "it did not wait");
        api.count(waits).await == 1
    })
    .await;
    worker.commit().await.unwrap();
    acting.await
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_action_waits_for_the_worker_that_posts_and_sees_what_it_did(pool: PgPool) {
    let api = Api::new(pool).await;
    for isolation in ISOLATIONS {
        for action in ["replay", "discard"] {
            let letter = api.dead_lettered().await;
            let mut worker = as_worker(&api.pool, isolation).await;
            lock_account(&mut worker, &letter).await;
            assert!(post(&mut worker, &letter).await.unwrap());
            let answer = act_behind(&api, worker, &letter, action).await;
            if action == "replay" {
                answer.assert_problem(409, "transaction_final");
            } else {
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            let transaction = api.transaction(letter.transaction_id).await;
            assert_eq!(transaction["status"], "PROCESSED", "final is final");
        }
    }
    assert_eq!(api.sent().await, []);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_action_waits_for_a_worker_of_its_account_that_does_something_else(pool: PgPool) {
    let api = Api::new(pool).await;
    for action in ["replay", "discard"] {
        let letter = api.dead_lettered().await;
        let mut worker = as_worker(&api.pool, "SERIALIZABLE").await;
        lock_account(&mut worker, &letter).await;
        let answer = act_behind(&api, worker, &letter, action).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_worker_with_an_older_snapshot_posts_nothing_that_was_discarded(pool: PgPool) {
    let api = Api::new(pool).await;
    for isolation in ISOLATIONS {
        let letter = api.dead_lettered().await;
        let mut worker = as_worker(&api.pool, isolation).await;
        // Its snapshot, where it has one for all statements, is older than the discard.
        let first = sqlx::query("SELECT 1 FROM accounts");
        first.fetch_all(&mut *worker).await.unwrap();
        assert_eq!(api.discard(&letter).await.status, 200);
        lock_account(&mut worker, &letter).await;
        match post(&mut worker, &letter).await {
            Ok(posted) => assert!(!posted, "{isolation}"),
            Err(error) => {
                let code = error.as_database_error().unwrap().code().unwrap();
                assert_eq!((isolation, &*code), ("SERIALIZABLE", "40001"));
            }
        }
        drop(worker);
        let transaction = api.transaction(letter.transaction_id).await;
        assert_eq!(
            (&transaction["status"], &transaction["failure_reason"]),
            (&json!("FAILED"), &json!("discarded"))
        );
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replayed_event_can_be_closed_by_a_worker_with_an_older_snapshot(pool: PgPool) {
    let api = Api::new(pool).await;
    for isolation in ISOLATIONS {
        let letter = api.dead_lettered().await;
        let mut worker = as_worker(&api.pool, isolation).await;
        let first = sqlx::query("SELECT 1 FROM accounts");
        first.fetch_all(&mut *worker).await.unwrap();
        assert_eq!(api.replay(&letter).await.status, 200);
        lock_account(&mut worker, &letter).await;
        // A copy of the event that was delivered before; the replayed one is still to come. Either the
        // worker ends it now, or it is told to look again: no third way.
        let posted = post(&mut worker, &letter).await;
        match posted {
            Ok(posted) => {
                assert!(posted && isolation == "READ COMMITTED");
                worker.commit().await.unwrap();
                let transaction = api.transaction(letter.transaction_id).await;
                assert_eq!(transaction["status"], "PROCESSED");
            }
            Err(error) => {
                let code = error.as_database_error().unwrap().code().unwrap();
                assert_eq!((isolation, &*code), ("SERIALIZABLE", "40001"));
                drop(worker);
                let transaction = api.transaction(letter.transaction_id).await;
                assert_eq!(transaction["failure_reason"], Value::Null);
            }
        }
    }
    api.end().await;
}
