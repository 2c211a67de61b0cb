//! Events that fail by themselves: they are parked, and what comes later for their accounts waits.

use common::types::AccountId;
use sqlx::PgPool;
use worker::{
    event::Event,
    failure::{Class, classify},
    metrics::Tally,
    parked::FirstFailure,
    slice::{self, Expected, Inapplicable, Outcome},
};

use crate::support::{kafka::*, *};

/// What stands in an account's queue, in its order.
#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Parked {
    event_id: uuid::Uuid,
    attempts: i32,
    is_due_some_time: bool,
    last_error: Option<String>,
}

async fn queue(pool: &PgPool, account: AccountId) -> Vec<Parked> {
    sqlx::query_as(
        "SELECT event_id, attempts, next_attempt_at IS NOT NULL AS is_due_some_time, last_error
           FROM parked_events WHERE account_id = $1 ORDER BY position",
    )
    .bind(account)
    .fetch_all(pool)
    .await
    .unwrap()
}

fn waiting(event: &Event) -> Parked {
    Parked {
        event_id: event.id().0,
        attempts: 0,
        is_due_some_time: false,
        last_error: None,
    }
}

async fn parked_count(pool: &PgPool, account: AccountId) -> i32 {
    sqlx::query_scalar("SELECT parked_count FROM accounts WHERE id = $1")
        .bind(account)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// Parks an event as the head of its account's queue.
async fn park_head(pool: &PgPool, event: &Event) -> Outcome {
    let failure = FirstFailure {
        error: "it failed".to_owned(),
        pause: PATIENCE,
    };
    let item = items(&[event]).remove(0);
    slice::park(pool, PATIENCE, &topics(), &item, &failure)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_poison_event_is_parked_and_later_ones_of_its_account_wait_while_others_go_on(
    pool: PgPool,
) {
    poison::prepare(&pool).await;
    for level in LEVELS {
        let stream = Stream::new(1).await;
        let (sick, sound) = (account(&pool, 0).await, account(&pool, 0).await);
        let mut events = Vec::new();
        for _ in 0..10 {
            events.push(accept(&pool, sound, CREDIT, 1).await);
            events.push(accept(&pool, sick, CREDIT, 1).await);
        }
        // Of the sick account the first two are posted; the third is the culprit.
        let sick_events: Vec<&Event> = events.iter().skip(1).step_by(2).collect();
        poison::add(&pool, sick_events[2].id().0).await;
        for event in &events {
            stream.publish(0, event).await;
        }
        let mut config = stream.config(&pool);
        config.slices.worker_isolation = level;
        let mut stepper = Stepper::join(&config);
        let tally = stepper.consume(20).await;
        let expected = Tally {
            applied: 12,
            parked: 8,
            ..Tally::default()
        };
        assert_eq!(tally, expected);
        assert_eq!(balance(&pool, sound).await, (10, 10));
        assert_eq!(balance(&pool, sick).await, (2, 2));
        let found = queue(&pool, sick).await;
        assert_eq!((found[0].attempts, found[0].is_due_some_time), (1, true));
        let error = found[0].last_error.clone().unwrap();
        assert!(
            error.contains("poisoned") && error.contains("P0001"),
            "{error}"
        );
        assert_eq!(found[0].event_id, sick_events[2].id().0);
        let behind: Vec<_> = sick_events[3..]
            .iter()
            .map(|event| waiting(event))
            .collect();
        assert_eq!(found[1..], behind);
        assert_eq!(parked_count(&pool, sick).await, 8);
        for event in &sick_events[2..] {
            assert_eq!(status(&pool, event).await, ("PROCESSING".to_owned(), None));
        }

        // A later slice: behind the queue, and beside it.
        let later = accept(&pool, sick, CREDIT, 1).await;
        stream.publish(0, &later).await;
        stream
            .publish(0, &accept(&pool, sound, CREDIT, 1).await)
            .await;
        stepper.consume(2).await;
        assert_eq!(queue(&pool, sick).await.last(), Some(&waiting(&later)));
        assert_eq!(balance(&pool, sound).await, (11, 11));
        assert!(stepper.readiness.reasons().is_empty());
        stepper.leave().await;
        assert_eq!(stream.committed(0).await, Some(22));
        assert_eq!(count(&pool, "SELECT count(*) FROM dead_letters").await, 0);
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_redelivery_of_parked_events_changes_nothing(pool: PgPool) {
    poison::prepare(&pool).await;
    for level in LEVELS {
        let stream = Stream::new(1).await;
        let (sick, sound) = (account(&pool, 0).await, account(&pool, 0).await);
        poison::add(&pool, sick.0).await;
        for _ in 0..5 {
            stream
                .publish(0, &accept(&pool, sick, CREDIT, 1).await)
                .await;
            stream
                .publish(0, &accept(&pool, sound, CREDIT, 1).await)
                .await;
        }
        let mut config = stream.config(&pool);
        config.slices.worker_isolation = level;
        let mut stepper = Stepper::join(&config);
        stepper.consume(10).await;
        stepper.leave().await;
        assert_eq!(parked_count(&pool, sick).await, 5);
        let once = state(&pool).await;

        stream.set_committed(0, 0).await;
        let mut stepper = Stepper::join(&config);
        let tally = stepper.consume(10).await;
        stepper.leave().await;
        assert_eq!(tally.duplicate, 10);
        assert_eq!(state(&pool).await, once);
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn poison_events_of_several_accounts_in_one_slice_are_all_found(pool: PgPool) {
    poison::prepare(&pool).await;
    let stream = Stream::new(2).await;
    let mut accounts = Vec::new();
    for number in 0..8 {
        accounts.push(account(&pool, 0).await);
        if number % 3 == 0 {
            poison::add(&pool, accounts[number].0).await;
        }
    }
    for number in 0..64 {
        let event = accept(&pool, accounts[number % 8], CREDIT, 1).await;
        let partition = i32::try_from(number % 2).unwrap();
        stream.publish(partition, &event).await;
    }
    let mut stepper = Stepper::join(&stream.config(&pool));
    let tally = stepper.consume(64).await;
    stepper.leave().await;
    assert_eq!((tally.applied, tally.parked), (40, 24));
    for (number, account) in accounts.into_iter().enumerate() {
        let found = queue(&pool, account).await;
        let heads = found.iter().filter(|parked| parked.is_due_some_time);
        if number % 3 == 0 {
            assert_eq!((found.len(), heads.count()), (8, 1));
            assert!(found[0].is_due_some_time);
        } else {
            assert!(found.is_empty());
        }
    }
    assert_eq!(stream.committed(0).await, Some(32));
    assert_eq!(stream.committed(1).await, Some(32));
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_parked_event_keeps_its_record_untouched(pool: PgPool) {
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 1).await;
    assert_eq!(park_head(&pool, &event).await, Outcome::Parked);
    let (key, value, headers, at): (Vec<u8>, Vec<u8>, String, chrono::DateTime<chrono::Utc>) =
        sqlx::query_as("SELECT key, value, headers::text, recorded_at FROM parked_events")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(Some(&key[..]), event.raw.key());
    assert_eq!(Some(&value[..]), event.raw.value());
    assert_eq!(
        headers,
        serde_json::to_string(&event.raw.headers()).unwrap()
    );
    assert_eq!(Some(at), event.raw.recorded_at());
    // Whoever parks it once more is late.
    assert_eq!(park_head(&pool, &event).await, Outcome::Duplicate);
    assert_eq!(parked_count(&pool, account).await, 1);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn only_what_is_open_waits_behind_a_queue(pool: PgPool) {
    for level in LEVELS {
        for expected in [Expected::New, Expected::Any] {
            let worker = worker_pool(&pool, level);
            let (sick, sound) = (account(&pool, 0).await, account(&pool, 0).await);
            let ended = accept(&pool, sick, CREDIT, 1).await;
            apply_through(&worker, &[&ended]).await;
            let given_up = accept(&pool, sick, CREDIT, 2).await;
            sqlx::query(
                "UPDATE transactions SET status = 'PROCESSING', failure_reason = 'dead_lettered'
                  WHERE id = $1",
            )
            .bind(given_up.id())
            .execute(&pool)
            .await
            .unwrap();
            let head = accept(&pool, sick, CREDIT, 3).await;
            assert_eq!(park_head(&worker, &head).await, Outcome::Parked);
            let waits = accept(&pool, sick, CREDIT, 4).await;
            let coming = accept(&pool, sick, CREDIT, 5).await;
            let forged = forge(&coming, |claim| claim.amount_cents = 6.try_into().unwrap());
            let free = accept(&pool, sound, CREDIT, 6).await;

            let slice = [&ended, &given_up, &head, &waits, &waits, &free];
            let outcomes = apply_expecting(&worker, &slice, expected).await.unwrap();
            let (duplicate, parked) = (Outcome::Duplicate, Outcome::Parked);
            assert_eq!(
                outcomes[..5],
                [duplicate, duplicate, duplicate, parked, duplicate]
            );
            assert!(outcomes[5].posting().is_some());
            let outcomes = apply_expecting(&worker, &[&forged], expected)
                .await
                .unwrap();
            assert_eq!(outcomes, [Outcome::Dead(Inapplicable::Amount)]);
            assert_eq!(status(&pool, &coming).await, ("PENDING".to_owned(), None));
            let found = queue(&pool, sick).await;
            assert_eq!(found.len(), 2);
            assert_eq!(found[1], waiting(&waits));
            assert_eq!(parked_count(&pool, sick).await, 2);
            assert_eq!(
                status(&pool, &given_up).await,
                ("PROCESSING".to_owned(), Some("dead_lettered".to_owned()))
            );
        }
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_dead_lettered_transaction_is_not_posted_by_its_events_repeat(pool: PgPool) {
    for level in LEVELS {
        for expected in [Expected::New, Expected::Any] {
            let worker = worker_pool(&pool, level);
            let account = account(&pool, 0).await;
            let event = accept(&pool, account, CREDIT, 1).await;
            sqlx::query(
                "UPDATE transactions SET status = 'PROCESSING', failure_reason = 'dead_lettered'
                  WHERE id = $1",
            )
            .bind(event.id())
            .execute(&pool)
            .await
            .unwrap();
            let outcomes = apply_expecting(&worker, &[&event], expected).await.unwrap();
            assert_eq!(outcomes, [Outcome::Duplicate]);
            assert_eq!(balance(&pool, account).await, (0, 0));
        }
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn two_workers_keep_the_order_of_a_queue_and_park_each_event_once(pool: PgPool) {
    for level in LEVELS {
        let workers = [worker_pool(&pool, level), worker_pool(&pool, level)];
        let accounts = [account(&pool, 0).await, account(&pool, 0).await];
        let mut events = Vec::new();
        for number in 0..80 {
            events.push(accept(&pool, accounts[number % 2], CREDIT, 1).await);
        }
        park_head(&workers[0], &events[0]).await;
        let (first, second) = tokio::join!(
            apply_in_slices(&workers[0], &events, 7),
            apply_in_slices(&workers[1], &events, 11),
        );
        for (number, (first, second)) in first.iter().zip(&second).enumerate() {
            let outcomes = [first, second].into_iter();
            let new = outcomes.filter(|outcome| **outcome != Outcome::Duplicate);
            assert_eq!(new.count(), usize::from(number > 0), "{number}");
        }
        let sick = events.iter().step_by(2).map(|event| event.id().0);
        let found: Vec<_> = queue(&pool, accounts[0]).await;
        assert!(found.iter().map(|parked| parked.event_id).eq(sick));
        assert_eq!(parked_count(&pool, accounts[0]).await, 40);
        assert_eq!(balance(&pool, accounts[1]).await, (40, 40));
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_error_of_one_event_is_told_as_such_whatever_is_expected(pool: PgPool) {
    poison::prepare(&pool).await;
    let account = account(&pool, 0).await;
    poison::add(&pool, account.0).await;
    let event = accept(&pool, account, CREDIT, 1).await;
    let before = state(&pool).await;
    for expected in [Expected::New, Expected::Any] {
        let error = apply_expecting(&pool, &[&event], expected)
            .await
            .unwrap_err();
        assert_eq!(classify(&error), Class::OfOneEvent, "{error}");
        assert_eq!(state(&pool).await, before);
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn members_whose_connections_die_lose_and_reorder_nothing_that_is_parked(pool: PgPool) {
    poison::prepare(&pool).await;
    for level in LEVELS {
        let stream = Stream::new(4).await;
        let mut accounts = Vec::new();
        for _ in 0..4 {
            accounts.push(account(&pool, 0).await);
        }
        let mut events = Vec::new();
        for number in 0..200 {
            events.push(accept(&pool, accounts[number % 4], CREDIT, 1).await);
        }
        // Of the first two accounts the eleventh event each.
        for culprit in [40, 41] {
            poison::add(&pool, events[culprit].id().0).await;
        }
        let mut config = stream.config(&pool);
        config.slices.worker_isolation = level;
        config.slices.slice_events_max = 7;
        let members = [Running::start(&config), Running::start(&config)];
        for (number, event) in events.iter().enumerate() {
            let partition = i32::try_from(number % 4).unwrap();
            stream.publish(partition, event).await;
            if number % 20 == 0 {
                sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name = 'worker'",
                )
                .execute(&pool)
                .await
                .unwrap();
            }
        }
        eventually("each is posted or parked", async || {
            let mut done = i64::from(parked_count(&pool, accounts[0]).await);
            done += i64::from(parked_count(&pool, accounts[1]).await);
            done + balances(&pool, &accounts).await == 200
        })
        .await;
        for member in members {
            member.stop().await;
        }
        for (number, account) in accounts.iter().enumerate() {
            let posted = if number < 2 { 10 } else { 50 };
            assert_eq!(balance(&pool, *account).await, (posted, posted));
            let own = events.iter().skip(number).step_by(4);
            let behind = own.skip(usize::try_from(posted).unwrap());
            let found = queue(&pool, *account).await;
            let found = found.iter().map(|parked| parked.event_id);
            assert!(found.eq(behind.map(|event| event.id().0)), "{number}");
        }
        assert_books_balance(&pool).await;
    }
}
