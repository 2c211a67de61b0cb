//! Long queues: what is read grows with what is done, not with what waits.

use common::db::Isolation;
use sqlx::PgPool;
use worker::retry::Step;

use crate::support::{parked::*, *};

/// Rows and index entries of these tables that were read so far, and by scans over whole tables.
async fn rows_read(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as(
        "SELECT (SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes
                  WHERE relname IN ('parked_events', 'accounts', 'transactions')),
                (SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables
                  WHERE relname IN ('parked_events', 'accounts', 'transactions'))",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn one_long_queue_is_walked_by_index_and_no_further_than_it_is_drained(pool: PgPool) {
    assert_reads_no_more_than_it_does(&pool, 1, Isolation::Serializable).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn many_queues_are_walked_by_index_and_no_further_than_they_are_drained(pool: PgPool) {
    assert_reads_no_more_than_it_does(&pool, 2_000, Isolation::ReadCommitted).await;
}

async fn assert_reads_no_more_than_it_does(pool: &PgPool, accounts: i64, level: Isolation) {
    fill_and_be_counted(pool, 20_000, accounts).await;
    let mut retrier = Retrier::new(&config(pool, level));
    let (read_before, scanned_before) = rows_read(pool).await;
    let mut moved = 0;
    for _ in 0..8 {
        let Step::Moved(tally) = retrier.retries.step().await else {
            panic!("there is plenty to do")
        };
        moved += i64::try_from(tally.applied).unwrap();
    }
    assert_eq!(moved, 255);
    drop(retrier);
    // The counts arrive when the session that made them ends.
    eventually("the counts arrive", async || {
        rows_read(pool).await.0 >= read_before + moved
    })
    .await;
    let (read, scanned) = rows_read(pool).await;
    let read = read - read_before;
    // An event is found in its queue, as its transaction and through its account, some of them twice
    // or three times; and each look takes 64 due heads and their accounts.
    assert!(
        read < 8 * moved + 8 * 3 * 64,
        "{read} rows read for {moved} events"
    );
    assert_eq!(scanned, scanned_before, "whole tables were read");
    assert_queues_are_whole(pool).await;
}

/// Fills in sessions of its own, whose reads are counted when they are gone.
async fn fill_and_be_counted(pool: &PgPool, events: i64, accounts: i64) {
    let options = (*pool.connect_options()).clone();
    let filling = PgPool::connect_with(options.application_name("filling"))
        .await
        .unwrap();
    park_many(&filling, events, accounts).await;
    filling.close().await;
    eventually("the sessions are gone", async || {
        let sessions = "SELECT count(*) FROM pg_stat_activity
                         WHERE application_name = 'filling' AND datname = current_database()";
        count(pool, sessions).await == 0
    })
    .await;
}
