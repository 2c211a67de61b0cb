//! Slices against a real database, without Kafka, under both isolation levels.

use common::{
    db::Isolation,
    types::{AccountId, AmountCents, FailureReason, TransactionCreated, TransactionId},
};
use serde_json::json;
use sqlx::PgPool;
use worker::{
    failure::{Class, classify},
    ledger::{Entry, Posting},
    slice::{Expected, Inapplicable, Outcome},
};

use crate::support::*;

fn applied(entry_no: i64, amount_cents: i64, balance_after_cents: i64) -> Posting {
    Posting::Applied(Entry {
        entry_no,
        amount_cents,
        balance_after_cents,
    })
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn credits_and_debits_become_entries_balances_and_result_events(pool: PgPool) {
    for level in LEVELS {
        let worker = worker_pool(&pool, level);
        let account = account(&pool, 0).await;
        let credit = accept(&pool, account, CREDIT, 500).await;
        let debit = accept(&pool, account, DEBIT, 120).await;
        let before = results(&pool).await.len();

        let outcomes = apply(&worker, &[&credit, &debit]).await.unwrap();

        let expected = [Some(applied(1, 500, 500)), Some(applied(2, -120, 380))];
        assert_eq!(postings(&outcomes), expected);
        assert_eq!(balance(&pool, account).await, (380, 2));
        for event in [&credit, &debit] {
            assert_eq!(status(&pool, event).await, ("PROCESSED".to_owned(), None));
        }
        let told = &results(&pool).await[before..];
        let expected = json!({
            "schema_version": 1, "transaction_id": debit.transaction.transaction_id,
            "account_id": account, "amount_cents": 120, "currency": "EUR", "type": "DEBIT",
            "entry_no": 2, "balance_after_cents": 380,
        });
        assert_eq!(told.len(), 2);
        assert_eq!(told[1], ("transaction.processed".to_owned(), expected));
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn each_business_rejection_ends_failed_with_its_reason_and_no_entry(pool: PgPool) {
    for level in LEVELS {
        let worker = worker_pool(&pool, level);
        let poor = account(&pool, 99).await;
        let closed = account(&pool, 1000).await;
        let foreign = account_of(&pool, "USD", 1000).await;
        let full = account(&pool, i64::MAX - 5).await;
        let table = [
            (
                accept(&pool, poor, DEBIT, 100).await,
                FailureReason::InsufficientFunds,
            ),
            (
                accept(&pool, closed, CREDIT, 1).await,
                FailureReason::AccountSuspended,
            ),
            (
                accept(&pool, foreign, CREDIT, 1).await,
                FailureReason::CurrencyMismatch,
            ),
            (
                accept(&pool, full, CREDIT, 6).await,
                FailureReason::BalanceOverflow,
            ),
        ];
        suspend(&pool, closed).await;
        let accounts = state(&pool).await.accounts;
        let entries = state(&pool).await.entries;
        let before = results(&pool).await.len();

        let events = table.each_ref().map(|(event, _)| event);
        let outcomes = apply(&worker, &events).await.unwrap();

        assert_eq!(
            postings(&outcomes),
            table.each_ref().map(|(_, reason)| rejected(*reason))
        );
        let told = results(&pool).await;
        for ((event, reason), (event_type, payload)) in table.iter().zip(&told[before..]) {
            let failed = ("FAILED".to_owned(), Some(reason.as_str().to_owned()));
            assert_eq!(status(&pool, event).await, failed);
            assert_eq!(event_type, "transaction.failed");
            assert_eq!(payload["failure_reason"], reason.as_str());
            assert_eq!(
                payload["transaction_id"],
                json!(event.transaction.transaction_id)
            );
        }
        // Not even `updated_at` moved.
        assert_eq!(state(&pool).await.accounts, accounts);
        assert_eq!(state(&pool).await.entries, entries);
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_slice_applied_again_changes_nothing(pool: PgPool) {
    for level in LEVELS {
        let worker = worker_pool(&pool, level);
        let events = mixed(&pool, 3, 20).await;
        apply(&worker, &events).await.unwrap();
        let once = state(&pool).await;

        let again = apply(&worker, &events).await.unwrap();

        assert!(again.iter().all(|outcome| *outcome == Outcome::Duplicate));
        assert_eq!(state(&pool).await, once);
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn repeats_within_a_slice_are_applied_once(pool: PgPool) {
    for level in LEVELS {
        let worker = worker_pool(&pool, level);
        let account = account(&pool, 0).await;
        let credit = accept(&pool, account, CREDIT, 5).await;
        let debit = accept(&pool, account, DEBIT, 9).await;

        let outcomes = apply(&worker, &[&credit, &credit, &debit, &debit, &credit])
            .await
            .unwrap();

        let refused = rejected(FailureReason::InsufficientFunds);
        assert_eq!(
            postings(&outcomes),
            [Some(applied(1, 5, 5)), None, refused, None, None]
        );
        assert_eq!(balance(&pool, account).await, (5, 1));
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_is_expected_of_a_slice_changes_no_outcome(pool: PgPool) {
    for level in LEVELS {
        for expected in [Expected::New, Expected::Any] {
            let worker = worker_pool(&pool, level);
            let account = account(&pool, 0).await;
            let earlier = accept(&pool, account, CREDIT, 1).await;
            apply_expecting(&worker, &[&earlier], expected)
                .await
                .unwrap();
            let credit = accept(&pool, account, CREDIT, 5).await;
            let too_much = accept(&pool, account, DEBIT, 50).await;
            let debit = accept(&pool, account, DEBIT, 3).await;
            // With a repeat of an earlier slice, and without.
            let mixed = [&credit, &too_much, &earlier];
            let (first, second): (&[_], &[_]) = (&mixed, &[&credit, &debit]);

            let outcomes = apply_expecting(&worker, first, expected).await.unwrap();
            let refused = rejected(FailureReason::InsufficientFunds);
            assert_eq!(postings(&outcomes), [Some(applied(2, 5, 6)), refused, None]);
            let outcomes = apply_expecting(&worker, second, expected).await.unwrap();
            assert_eq!(postings(&outcomes), [None, Some(applied(3, -3, 3))]);

            let fresh = accept(&pool, account, CREDIT, 4).await;
            let outcomes = apply_expecting(&worker, &[fresh], expected).await.unwrap();
            let Outcome::Closed { age_seconds, .. } = outcomes[0] else {
                panic!("{outcomes:?}")
            };
            assert!(age_seconds > 0.0);
            assert_eq!(balance(&pool, account).await, (7, 4));
            assert_books_balance(&pool).await;
        }
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_final_transaction_stays_final_when_its_event_was_forgotten(pool: PgPool) {
    for level in LEVELS {
        let worker = worker_pool(&pool, level);
        let account = account(&pool, 10).await;
        let events = [
            accept(&pool, account, DEBIT, 3).await,
            accept(&pool, account, DEBIT, 50).await,
        ];
        apply(&worker, &events).await.unwrap();
        sqlx::query("DELETE FROM processed_events")
            .execute(&pool)
            .await
            .unwrap();
        let once = state(&pool).await;

        let again = apply(&worker, &events).await.unwrap();

        assert_eq!(again, [Outcome::Duplicate; 2]);
        let after = state(&pool).await;
        assert_eq!((after.entries, after.results), (once.entries, once.results));
        assert_eq!(
            (after.accounts, after.transactions),
            (once.accounts, once.transactions)
        );
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_transaction_that_was_taken_up_and_not_ended_is_posted(pool: PgPool) {
    let worker = worker_pool(&pool, Isolation::Serializable);
    let account = account(&pool, 0).await;
    let credit = accept(&pool, account, CREDIT, 5).await;
    sqlx::query("UPDATE transactions SET status = 'PROCESSING'")
        .execute(&pool)
        .await
        .unwrap();
    apply(&worker, &[credit]).await.unwrap();
    assert_eq!(balance(&pool, account).await, (5, 1));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_forged_event_makes_no_money_and_loses_nobody_any(pool: PgPool) {
    type Forge = fn(&mut TransactionCreated, AccountId);
    let table: [(Forge, Inapplicable); 5] = [
        (
            |claim, _| claim.transaction_id = TransactionId::new(),
            Inapplicable::NoSuchTransaction,
        ),
        (
            |claim, other| claim.account_id = other,
            Inapplicable::NoSuchTransaction,
        ),
        (
            |claim, _| claim.amount_cents = AmountCents::try_from(6).unwrap(),
            Inapplicable::Amount,
        ),
        (
            |claim, _| claim.currency = "USD".parse().unwrap(),
            Inapplicable::Currency,
        ),
        (
            |claim, _| claim.transaction_type = DEBIT,
            Inapplicable::Type,
        ),
    ];
    for level in LEVELS {
        for expected in [Expected::New, Expected::Any] {
            let worker = worker_pool(&pool, level);
            let (account, other) = (account(&pool, 100).await, account(&pool, 100).await);
            let genuine = accept(&pool, account, CREDIT, 5).await;
            for (change, reason) in table {
                let good = accept(&pool, other, CREDIT, 1).await;
                let forged = forge(&genuine, |claim| change(claim, other));
                let closed_before = count(&pool, "SELECT count(*) FROM processed_events").await;
                let outcomes = apply_expecting(&worker, &[&forged, &good], expected)
                    .await
                    .unwrap();
                assert_eq!(outcomes[0], Outcome::Dead(reason));
                assert!(outcomes[1].posting().is_some());
                // Its letter is all that there is of it.
                assert_eq!(status(&pool, &genuine).await, ("PENDING".to_owned(), None));
                let closed = count(&pool, "SELECT count(*) FROM processed_events").await;
                assert_eq!(closed, closed_before + 1);
            }
            // The genuine one is as good as before.
            let outcomes = apply_expecting(&worker, &[&genuine], expected).await;
            assert_eq!(postings(&outcomes.unwrap()), [Some(applied(2, 5, 105))]);
            assert_eq!(status(&pool, &genuine).await.0, "PROCESSED");
            assert_books_balance(&pool).await;
        }
    }
    assert_eq!(count(&pool, "SELECT count(*) FROM dead_letters").await, 20);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_event_that_breaks_a_rule_of_the_database_is_its_own_error(pool: PgPool) {
    let worker = worker_pool(&pool, Isolation::Serializable);
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 5).await;
    // The books are broken already: the account's first number is taken.
    sqlx::query("INSERT INTO ledger_entries VALUES ($1, 1, $2, 1, 1)")
        .bind(account)
        .bind(TransactionId::new())
        .execute(&pool)
        .await
        .unwrap();
    let before = state(&pool).await;
    let error = apply(&worker, &[event]).await.unwrap_err();
    assert_eq!(error.sqlstate().as_deref(), Some("23505"));
    assert_eq!(classify(&error), Class::OfOneEvent);
    assert_eq!(state(&pool).await, before);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_result_event_that_is_swallowed_stops_everything(pool: PgPool) {
    let worker = worker_pool(&pool, Isolation::Serializable);
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 5).await;
    sqlx::raw_sql(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER swallow BEFORE INSERT ON outbox_events
                FOR EACH ROW EXECUTE FUNCTION swallow()",
    )
    .execute(&pool)
    .await
    .unwrap();
    let before = state(&pool).await;
    let error = apply(&worker, &[event]).await.unwrap_err();
    assert_eq!(classify(&error), Class::Systemic, "{error}");
    assert_eq!(state(&pool).await, before);
}
