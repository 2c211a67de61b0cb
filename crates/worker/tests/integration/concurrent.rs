//! Two workers that apply at once, under both isolation levels.

use common::types::{AccountId, TransactionId};
use sqlx::PgPool;
use worker::{event::Event, slice::Outcome};

use crate::support::*;

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn two_workers_on_the_same_events_post_each_once(pool: PgPool) {
    for level in LEVELS {
        let workers = [worker_pool(&pool, level), worker_pool(&pool, level)];
        let events = mixed(&pool, 4, 120).await;

        // Both go through all events, in slices that do not line up.
        let (first, second) = tokio::join!(
            apply_in_slices(&workers[0], &events, 7),
            apply_in_slices(&workers[1], &events, 11),
        );

        for (first, second) in first.iter().zip(&second) {
            let closed = [first, second].map(|outcome| *outcome != Outcome::Duplicate);
            assert!(
                closed == [true, false] || closed == [false, true],
                "{first:?} {second:?}"
            );
        }
        assert_books_balance(&pool).await;
        assert_order_kept(&pool, &events).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn workers_that_share_accounts_lose_no_update(pool: PgPool) {
    for level in LEVELS {
        let account = account(&pool, 0).await;
        let mut halves = [Vec::new(), Vec::new()];
        for number in 0..60 {
            halves[number % 2].push(accept(&pool, account, CREDIT, 1).await);
        }
        let workers = [worker_pool(&pool, level), worker_pool(&pool, level)];
        tokio::join!(
            apply_in_slices(&workers[0], &halves[0], 3),
            apply_in_slices(&workers[1], &halves[1], 2),
        );
        assert_eq!(balance(&pool, account).await, (60, 60));
        assert_books_balance(&pool).await;
    }
}

/// Each account's entries stand in the order of its events.
async fn assert_order_kept(pool: &PgPool, events: &[Event]) {
    let entries: Vec<(AccountId, TransactionId)> = sqlx::query_as(
        "SELECT account_id, transaction_id FROM ledger_entries ORDER BY account_id, entry_no",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let place = |id: TransactionId| {
        events
            .iter()
            .position(|e| e.transaction.transaction_id == id)
    };
    for pair in entries.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        if let (Some(first), Some(second)) = (place(pair[0].1), place(pair[1].1)) {
            assert!(
                first < second,
                "entry of event {second} stands before that of event {first}"
            );
        }
    }
}
