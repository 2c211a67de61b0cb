//! The worker's sessions: what its role may do, how it commits, and how it updates.

use common::{
    db::{ErrorClass, Isolation},
    types::TransactionId,
};
use sqlx::PgPool;
use uuid::Uuid;
use worker::{
    event::Raw,
    failure::{Class, classify},
    parked::FirstFailure,
    slice::{self, ApplyError, Inapplicable, Outcome},
};

use crate::support::*;

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_missing_grant_stops_everything_and_blames_no_event(pool: PgPool) {
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 5).await;
    // The api's role must not post; the worker with its URL is told so.
    let error = apply(&as_role(&pool, "postonce_api"), &[event])
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate().as_deref(), Some("42501"));
    assert_eq!(classify(&error), Class::Systemic);
    let ApplyError::Database(error) = error else {
        panic!("{error}")
    };
    assert_eq!(ErrorClass::of(&error), ErrorClass::Systemic);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_workers_role_may_do_all_that_posting_needs_and_no_more(pool: PgPool) {
    let worker = as_role(&pool, "postonce_worker");
    let events = mixed(&pool, 3, 30).await;
    apply(&worker, &events).await.unwrap();
    apply(&worker, &events).await.unwrap();
    assert_books_balance(&pool).await;
    set_aside(&pool, &worker).await;
    worker::housekeeping::prune(&worker, PATIENCE, std::time::Duration::ZERO, 7)
        .await
        .unwrap();

    for forbidden in [
        "UPDATE ledger_entries SET amount_cents = 1",
        "DELETE FROM ledger_entries",
        "DELETE FROM transactions",
        "UPDATE transactions SET amount_cents = 1",
        "DELETE FROM accounts",
        "UPDATE accounts SET status = 'ACTIVE'",
        "INSERT INTO accounts (id, currency) VALUES (gen_random_uuid(), 'EUR')",
        "SELECT 1 FROM api_keys",
    ] {
        let error = sqlx::query(forbidden).execute(&worker).await.unwrap_err();
        let code = error
            .as_database_error()
            .unwrap()
            .code()
            .unwrap()
            .into_owned();
        assert_eq!(code, "42501", "{forbidden}");
    }
}

/// Parks an event and one behind it, and makes dead letters of a forged one and of one that dies again.
async fn set_aside(pool: &PgPool, worker: &PgPool) {
    let account = account(pool, 0).await;
    let head = accept(pool, account, CREDIT, 1).await;
    let failure = FirstFailure {
        error: "it failed".to_owned(),
        pause: PATIENCE,
    };
    let item = items(&[&head]).remove(0);
    slice::park(worker, PATIENCE, &topics(), &item, &failure)
        .await
        .unwrap();
    let behind = accept(pool, account, CREDIT, 2).await;
    let mut forged = forge(&behind, |claim| {
        claim.transaction_id = TransactionId::new();
    });
    let outcomes = apply(worker, &[&behind, &forged]).await.unwrap();
    let dead = Outcome::Dead(Inapplicable::NoSuchTransaction);
    assert_eq!(outcomes, [Outcome::Parked, dead]);

    let id: Uuid = sqlx::query_scalar("UPDATE dead_letters SET state = 'REPLAYED' RETURNING id")
        .fetch_one(pool)
        .await
        .unwrap();
    let id = id.to_string();
    let header = ("dlq.id", Some(id.as_bytes()));
    forged.raw = Raw::new(forged.raw.key(), forged.raw.value(), &[header], None);
    assert_eq!(apply(worker, &[&forged]).await.unwrap(), [dead]);
    assert_eq!(count(pool, "SELECT count(*) FROM dead_letters").await, 1);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_slice_without_parked_accounts_touches_nothing_of_them(pool: PgPool) {
    let worker = as_role(&pool, "postonce_worker");
    poison::run(
        &pool,
        "REVOKE ALL ON parked_events, dead_letters FROM postonce_worker",
    )
    .await;
    let events = mixed(&pool, 3, 30).await;
    apply(&worker, &events).await.unwrap();
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn balances_and_statuses_are_updated_in_place(pool: PgPool) {
    let worker = worker_pool(&pool, Isolation::Serializable);
    // So few that no page needs pruning: when that happens depends on every session of the server.
    let mut accounts = Vec::new();
    for _ in 0..20 {
        accounts.push(account(&pool, 0).await);
    }
    for _ in 0..2 {
        let mut events = Vec::new();
        for account in &accounts {
            events.push(accept(&pool, *account, CREDIT, 1).await);
        }
        apply(&worker, &events).await.unwrap();
    }
    worker.close().await;
    let statistics = "SELECT relname::text, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
                    WHERE relname IN ('accounts', 'transactions') ORDER BY relname";
    // The counts arrive when the session that made them ends.
    let read = async || -> Vec<(String, i64, i64)> {
        sqlx::query_as(statistics).fetch_all(&pool).await.unwrap()
    };
    eventually("the counts arrive", async || {
        let counts = read().await;
        counts.iter().map(|(_, updates, _)| updates).sum::<i64>() >= 80
    })
    .await;
    for (table, updates, hot) in read().await {
        assert_eq!(
            hot, updates,
            "{table}: only {hot} of {updates} updates were HOT"
        );
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn sessions_commit_durably_and_are_bounded(pool: PgPool) {
    for (level, name) in [
        (Isolation::Serializable, "serializable"),
        (Isolation::ReadCommitted, "read committed"),
    ] {
        let worker = worker_pool(&pool, level);
        let settings: (String, String, String, String) = sqlx::query_as(
            "SELECT current_setting('transaction_isolation'), current_setting('synchronous_commit'),
                    current_setting('statement_timeout'),
                    current_setting('idle_in_transaction_session_timeout')",
        )
        .fetch_one(&worker)
        .await
        .unwrap();
        let expected = (
            name.to_owned(),
            "on".to_owned(),
            "5s".to_owned(),
            "5s".to_owned(),
        );
        assert_eq!(settings, expected);
    }
}

/// Sessions that act as a service's role.
fn as_role(pool: &PgPool, role: &str) -> PgPool {
    let mut config = config(pool, Isolation::Serializable);
    let options = (*pool.connect_options()).clone().options([("role", role)]);
    config.database_url = options.into();
    config.pool()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn transactions_are_found_by_their_primary_key(pool: PgPool) {
    let worker = worker_pool(&pool, Isolation::Serializable);
    let events = mixed(&pool, 3, 60).await;
    let scans = |index| {
        let sql = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $1";
        sqlx::query_scalar::<_, i64>(sql)
            .bind(index)
            .fetch_one(&pool)
    };
    let by_listing = scans("transactions_listing").await.unwrap();
    apply(&worker, &events).await.unwrap();
    worker.close().await;
    // The counts arrive when the session that made them ends.
    eventually("the counts arrive", async || {
        scans("transactions_pkey").await.unwrap() >= 60
    })
    .await;
    // The listing index leads to the same rows, over pages that the api writes to all the time.
    assert_eq!(scans("transactions_listing").await.unwrap(), by_listing);
}
