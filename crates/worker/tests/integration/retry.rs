//! Parked events that are tried again.

use std::time::Duration;

use common::{
    db::Isolation,
    outbox::CHANNEL,
    types::{AccountId, Lane, LaneSet, TransactionId},
};
use sqlx::{PgPool, Postgres, Transaction, postgres::PgListener};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use worker::{
    event::{Event, Item},
    failure::{Class, classify},
    parked::FirstFailure,
    retry::Step,
    slice::{self, Outcome},
};

use crate::support::{parked::*, proxy::Proxy, *};

const NO_PAUSE: Duration = Duration::ZERO;

fn ids(events: &[Event]) -> Vec<TransactionId> {
    let ids = events.iter().map(|event| event.transaction.transaction_id);
    ids.collect()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_event_that_heals_is_applied_at_a_later_attempt_and_its_queue_in_order(pool: PgPool) {
    for level in LEVELS {
        let mut retrier = Retrier::new(&retry_config(&pool, level));
        let account = account(&pool, 0).await;
        let mut queue = vec![accept(&pool, account, CREDIT, 66).await];
        for cents in 1..=20 {
            queue.push(accept(&pool, account, DEBIT, cents % 3 + 1).await);
        }
        poison(&pool, 66).await;
        park(&pool, &queue, NO_PAUSE).await;

        for failures in 2..=4 {
            retrier.until(|step| step == Step::Failed).await;
            assert_eq!(attempts(&pool).await, [failures]);
            assert_eq!(
                status(&pool, &queue[0]).await,
                ("PROCESSING".to_owned(), None)
            );
            assert_eq!(balance(&pool, account).await, (0, 0));
        }
        heal(&pool).await;
        let steps = retrier.drain().await;

        assert_eq!(entries(&pool, account).await, ids(&queue));
        // The head alone, then slices that grow: 1, 2, 4, 8 and the 6 that are left.
        let moved = steps.iter().map(|step| match step {
            Step::Moved(tally) => tally.applied,
            step => panic!("{step:?}"),
        });
        assert_eq!(moved.collect::<Vec<_>>(), [1, 2, 4, 8, 6]);
        assert_queues_are_whole(&pool).await;
        assert_books_balance(&pool).await;
        assert_eq!(
            count(&pool, "SELECT count(*) FROM processed_events").await,
            count(&pool, "SELECT count(*) FROM ledger_entries").await,
        );
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_rejection_of_a_parked_event_is_its_outcome(pool: PgPool) {
    for level in LEVELS {
        let mut retrier = Retrier::new(&retry_config(&pool, level));
        let (account, closed) = (account(&pool, 10).await, account(&pool, 10).await);
        let too_much = accept(&pool, account, DEBIT, 11).await;
        let enough = accept(&pool, account, DEBIT, 10).await;
        let refused = accept(&pool, closed, CREDIT, 1).await;
        suspend(&pool, closed).await;
        park(&pool, &[&too_much, &enough, &refused], NO_PAUSE).await;

        retrier.drain().await;

        let failed = |reason: &str| ("FAILED".to_owned(), Some(reason.to_owned()));
        assert_eq!(status(&pool, &too_much).await, failed("insufficient_funds"));
        assert_eq!(status(&pool, &enough).await.0, "PROCESSED");
        assert_eq!(status(&pool, &refused).await, failed("account_suspended"));
        assert_eq!(count(&pool, "SELECT count(*) FROM dead_letters").await, 0);
        assert_queues_are_whole(&pool).await;
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_event_that_fails_amid_a_queue_stops_only_what_is_behind_it(pool: PgPool) {
    let mut retrier = Retrier::new(&retry_config(&pool, Isolation::Serializable));
    let account = account(&pool, 0).await;
    let mut queue = Vec::new();
    for number in 0..30 {
        let cents = if number == 17 { 66 } else { 1 };
        queue.push(accept(&pool, account, CREDIT, cents).await);
    }
    park(&pool, &queue, NO_PAUSE).await;
    poison(&pool, 66).await;

    retrier.until(|step| step == Step::Failed).await;
    assert_eq!(entries(&pool, account).await, ids(&queue[..17]));
    // As a head it has its own attempts.
    assert_eq!(attempts(&pool).await, [1]);
    assert_queues_are_whole(&pool).await;

    heal(&pool).await;
    retrier.drain().await;
    assert_eq!(entries(&pool, account).await, ids(&queue));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_head_is_not_tried_before_its_time(pool: PgPool) {
    let mut config = retry_config(&pool, Isolation::Serializable);
    (
        config.failures.retry_pause_first_ms,
        config.failures.retry_pause_max_ms,
    ) = (50_000, 60_000);
    let mut retrier = Retrier::new(&config);
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 66).await;
    park(&pool, &[&event], Duration::from_hours(1)).await;
    let Step::Idle(Some(next_due)) = retrier.retries.step().await else {
        panic!("its time has not come")
    };
    assert!(
        (3_500..=3_600).contains(&next_due.as_secs()),
        "{next_due:?}"
    );

    poison(&pool, 66).await;
    sqlx::query("UPDATE parked_events SET next_attempt_at = now()")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(retrier.retries.step().await, Step::Failed);
    // Any part of the pause, which doubled behind the second attempt and is bounded.
    let pause: f64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM parked_events",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(pause <= 60.0, "{pause}");
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_account_that_somebody_else_holds_is_passed_by(pool: PgPool) {
    for level in LEVELS {
        let mut retrier = Retrier::new(&retry_config(&pool, level));
        let (held, free) = (account(&pool, 0).await, account(&pool, 0).await);
        let (waits, goes) = (
            accept(&pool, held, CREDIT, 1).await,
            accept(&pool, free, CREDIT, 1).await,
        );
        park(&pool, &[&waits, &goes], NO_PAUSE).await;
        let mut holder = pool.begin().await.unwrap();
        sqlx::query("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE")
            .bind(held)
            .execute(&mut *holder)
            .await
            .unwrap();

        retrier.until(|step| matches!(step, Step::Moved(_))).await;
        assert_eq!(retrier.retries.step().await, Step::Busy);
        assert_eq!(balance(&pool, free).await, (1, 1));
        assert_eq!(balance(&pool, held).await, (0, 0));

        holder.rollback().await.unwrap();
        retrier.drain().await;
        assert_eq!(balance(&pool, held).await, (1, 1));
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn two_workers_share_the_queues_and_apply_each_event_once_and_in_order(pool: PgPool) {
    for level in LEVELS {
        let mut config = retry_config(&pool, level);
        // Small slices, so that both have to come back to each queue.
        config.slices.slice_events_max = 4;
        let (mut one, mut other) = (Retrier::new(&config), Retrier::new(&config));
        // Both have their connections, and begin together.
        assert_eq!(one.retries.step().await, Step::Idle(None));
        assert_eq!(other.retries.step().await, Step::Idle(None));
        let mut queues: Vec<(AccountId, Vec<Event>)> = Vec::new();
        for _ in 0..6 {
            let account = account(&pool, 0).await;
            let mut events = Vec::new();
            for _ in 0..25 {
                events.push(accept(&pool, account, CREDIT, 1).await);
            }
            park(&pool, &events, NO_PAUSE).await;
            queues.push((account, events));
        }
        let (first, second) = tokio::join!(one.drain(), other.drain());

        assert!(
            !first.is_empty() && !second.is_empty(),
            "one had nothing to do"
        );
        for (account, events) in &queues {
            assert_eq!(entries(&pool, *account).await, ids(events));
        }
        assert_queues_are_whole(&pool).await;
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_restart_amid_a_queue_loses_nothing(pool: PgPool) {
    let config = retry_config(&pool, Isolation::Serializable);
    let account = account(&pool, 0).await;
    let mut queue = Vec::new();
    for _ in 0..10 {
        queue.push(accept(&pool, account, CREDIT, 1).await);
    }
    park(&pool, &queue, NO_PAUSE).await;
    let mut first = Retrier::new(&config);
    first.until(|step| matches!(step, Step::Moved(_))).await;
    first.until(|step| matches!(step, Step::Moved(_))).await;
    drop(first);
    assert_eq!(parked(&pool).await, 7);
    assert_queues_are_whole(&pool).await;

    Retrier::new(&config).drain().await;

    assert_eq!(entries(&pool, account).await, ids(&queue));
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn no_attempt_is_counted_while_the_database_is_away(pool: PgPool) {
    let mut proxy = Proxy::to(&pool).await;
    let mut config = retry_config(&pool, Isolation::Serializable);
    config.database_url = proxy.options(&pool).into();
    config.database.database_acquire_timeout_ms = 100;
    config.failures.retries_max = 0;
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 1).await;
    park(&pool, &[&event], NO_PAUSE).await;
    let mut retrier = Retrier::new(&config);
    proxy.cut();
    for _ in 0..10 {
        assert_eq!(retrier.retries.step().await, Step::Away);
    }
    assert!(retrier.readiness.reasons().contains_key("database"));
    assert_eq!(attempts(&pool).await, [1]);

    proxy.mend().await;
    retrier.drain().await;
    assert_eq!(balance(&pool, account).await, (1, 1));
    assert!(retrier.readiness.reasons().is_empty());
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn nothing_is_counted_while_the_schema_is_broken_and_all_goes_on_once_it_is_mended(
    pool: PgPool,
) {
    for level in LEVELS {
        let mut config = retry_config(&pool, level);
        config.failures.retries_max = 0;
        let mut retrier = Retrier::new(&config);
        let account = account(&pool, 0).await;
        let event = accept(&pool, account, CREDIT, 1).await;
        park(&pool, &[&event], NO_PAUSE).await;
        sqlx::query("ALTER TABLE ledger_entries RENAME TO gone")
            .execute(&pool)
            .await
            .unwrap();

        for _ in 0..8 {
            assert_eq!(retrier.retries.step().await, Step::StandingStill);
        }
        assert!(retrier.readiness.reasons()["ledger"].contains("42P01"));
        assert_eq!(attempts(&pool).await, [1]);

        sqlx::query("ALTER TABLE gone RENAME TO ledger_entries")
            .execute(&pool)
            .await
            .unwrap();
        retrier.drain().await;
        assert_eq!(balance(&pool, account).await, (1, 1));
        assert!(retrier.readiness.reasons().is_empty());
        assert_eq!(count(&pool, "SELECT count(*) FROM dead_letters").await, 0);
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn accounts_that_fail_alike_are_not_given_up_and_all_are_applied_once_it_is_mended(
    pool: PgPool,
) {
    let mut config = retry_config(&pool, Isolation::Serializable);
    config.failures.systemic_failures_max = 3;
    config.failures.retries_max = 2;
    let mut retrier = Retrier::new(&config);
    let mut events = Vec::new();
    for _ in 0..6 {
        let account = account(&pool, 0).await;
        events.push(accept(&pool, account, CREDIT, 66).await);
    }
    poison(&pool, 66).await;
    park(&pool, &events, NO_PAUSE).await;

    retrier.until(|step| step == Step::StandingStill).await;
    let counted = attempts(&pool).await;
    for _ in 0..20 {
        assert_eq!(retrier.retries.step().await, Step::StandingStill);
    }
    assert_eq!(attempts(&pool).await, counted);
    assert!(retrier.readiness.reasons()["ledger"].contains("poison for account"));

    heal(&pool).await;
    retrier.drain().await;
    assert!(retrier.readiness.reasons().is_empty());
    for event in &events {
        assert_eq!(status(&pool, event).await.0, "PROCESSED");
    }
    assert_eq!(count(&pool, "SELECT count(*) FROM dead_letters").await, 0);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_failed_alike_is_forgotten_when_all_of_it_ended_in_other_hands(pool: PgPool) {
    let mut config = retry_config(&pool, Isolation::Serializable);
    config.failures.systemic_failures_max = 3;
    config.failures.retries_max = 2;
    let mut retrier = Retrier::new(&config);
    let mut events = Vec::new();
    for _ in 0..3 {
        let account = account(&pool, 0).await;
        events.push(accept(&pool, account, CREDIT, 66).await);
    }
    poison(&pool, 66).await;
    park(&pool, &events, NO_PAUSE).await;
    retrier.until(|step| step == Step::StandingStill).await;

    // Another worker finds nothing wrong with the system.
    config.failures.systemic_failures_max = 100;
    Retrier::new(&config).drain().await;
    assert_eq!(count(&pool, "SELECT count(*) FROM dead_letters").await, 3);
    retrier.failures.hold_back(None);
    assert_eq!(retrier.retries.step().await, Step::Idle(None));
    let reasons = retrier.readiness.reasons();
    assert!(reasons.contains_key("ledger"), "a slice still waits here");

    retrier.failures.moved_on();
    assert_eq!(retrier.retries.step().await, Step::Idle(None));
    assert!(retrier.readiness.reasons().is_empty());
    let lone = account(&pool, 0).await;
    park(&pool, &[accept(&pool, lone, CREDIT, 66).await], NO_PAUSE).await;
    assert_eq!(retrier.retries.step().await, Step::Failed);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_statement_that_remembers_a_schema_of_before_is_forgotten(pool: PgPool) {
    let mut retrier = Retrier::new(&retry_config(&pool, Isolation::Serializable));
    let account = account(&pool, 0).await;
    for posted in 1..=3 {
        let event = accept(&pool, account, CREDIT, 1).await;
        park(&pool, &[&event], NO_PAUSE).await;
        // Each time of another type, with which "cached plan must not change result type".
        let sql = format!("ALTER TABLE accounts ALTER COLUMN currency TYPE varchar({posted}0)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&pool)
            .await
            .unwrap();
        retrier.drain().await;
        assert_eq!(balance(&pool, account).await, (posted, posted));
        assert!(retrier.readiness.reasons().is_empty());
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_slices_cannot_do_is_left_for_slices_to_try(pool: PgPool) {
    let mut retrier = Retrier::new(&retry_config(&pool, Isolation::Serializable));
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 1).await;
    park(&pool, &[&event], NO_PAUSE).await;
    retrier
        .failures
        .stand_still("rows were not as the locks promise");
    assert_eq!(retrier.retries.step().await, Step::StandingStill);
    assert_eq!(parked(&pool).await, 1);
    retrier.failures.moved_on();
    retrier.drain().await;
    assert_eq!(balance(&pool, account).await, (1, 1));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_queue_that_its_account_miscounts_is_not_touched(pool: PgPool) {
    let mut retrier = Retrier::new(&retry_config(&pool, Isolation::Serializable));
    let account = account(&pool, 0).await;
    let events = [
        accept(&pool, account, CREDIT, 1).await,
        accept(&pool, account, CREDIT, 1).await,
    ];
    park(&pool, &events, NO_PAUSE).await;
    sqlx::query("UPDATE accounts SET parked_count = 1")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(retrier.retries.step().await, Step::StandingStill);
    assert!(retrier.readiness.reasons()["ledger"].contains("rows of parked_events"));
    assert_eq!(parked(&pool).await, 2);
    assert_eq!(balance(&pool, account).await, (0, 0));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_workers_role_may_do_all_that_retries_and_dead_letters_need(pool: PgPool) {
    let mut config = retry_config(&pool, Isolation::Serializable);
    let options = (*pool.connect_options()).clone();
    config.database_url = options.options([("role", "postonce_worker")]).into();
    config.kafka.dead_letter_rejections = true;
    let mut retrier = Retrier::new(&config);
    let (sound, sick) = (account(&pool, 0).await, account(&pool, 0).await);
    let events = [
        accept(&pool, sound, CREDIT, 1).await,
        accept(&pool, sound, DEBIT, 50).await,
        accept(&pool, sick, CREDIT, 66).await,
    ];
    poison(&pool, 66).await;
    park(&pool, &events, NO_PAUSE).await;
    retrier.drain().await;
    assert_eq!(balance(&pool, sound).await, (1, 1));
    assert_eq!(count(&pool, "SELECT count(*) FROM dead_letters").await, 2);
    worker::retry::gauge::count(&config.pool(), PATIENCE)
        .await
        .unwrap();
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_publisher_hears_of_results_and_of_letters(pool: PgPool) {
    let mut publisher = PgListener::connect_with(&pool).await.unwrap();
    publisher.listen(CHANNEL).await.unwrap();
    let mut config = retry_config(&pool, Isolation::Serializable);
    config.failures.retries_max = 0;
    let mut retrier = Retrier::new(&config);
    for cents in [1, 66] {
        let account = account(&pool, 0).await;
        let event = accept(&pool, account, CREDIT, cents).await;
        poison(&pool, 66).await;
        park(&pool, &[&event], NO_PAUSE).await;
        retrier.drain().await;
        let hint = timeout(PATIENCE, publisher.recv()).await.unwrap().unwrap();
        let lanes: LaneSet = hint.payload().parse().unwrap();
        assert!(lanes.contains(Lane::of(account)), "{cents}");
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_loop_waits_for_due_times_and_hears_of_what_is_parked_here(pool: PgPool) {
    let config = retry_config(&pool, Isolation::Serializable);
    let retrier = Retrier::new(&config);
    let stop = CancellationToken::new();
    let (failures, readiness) = (retrier.failures, retrier.readiness);
    let running = tokio::spawn(retrier.retries.run(stop.clone()));
    let account = account(&pool, 0).await;
    let event = accept(&pool, account, CREDIT, 66).await;
    poison(&pool, 66).await;
    park(&pool, &[&event], NO_PAUSE).await;
    failures.parked();
    eventually("it is tried", async || attempts(&pool).await != [1]).await;
    heal(&pool).await;
    eventually("it is applied, or was given up", async || {
        parked(&pool).await == 0
    })
    .await;
    assert!(readiness.reasons().is_empty());
    stop.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}

/// Applies events one by one, as the loop of slices does with one that fails by itself.
async fn slices(worker: &PgPool, events: &[Event]) {
    let failure = FirstFailure {
        error: "poison".to_owned(),
        pause: NO_PAUSE,
    };
    for event in events {
        loop {
            let outcome = match apply(worker, &[event]).await {
                Err(error) if classify(&error) == Class::OfOneEvent => {
                    let item = Item::Event(event.clone());
                    slice::park(worker, PATIENCE, &topics(), &item, &failure).await
                }
                outcome => outcome.map(|mut outcomes| outcomes.remove(0)),
            };
            match outcome {
                Ok(Outcome::Parked | Outcome::Closed { .. }) => break,
                Ok(outcome) => panic!("{outcome:?}"),
                Err(error) => assert_eq!(classify(&error), Class::Collision, "{error}"),
            }
        }
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_account_keeps_its_order_while_slices_park_and_retries_drain(pool: PgPool) {
    for level in LEVELS {
        let mut config = retry_config(&pool, level);
        config.failures.retries_max = 100;
        config.failures.retry_pause_max_ms = 50;
        let mut retrier = Retrier::new(&config);
        let worker = worker_pool(&pool, level);
        let account = account(&pool, 0).await;
        let mut events = Vec::new();
        for number in 0..60 {
            let cents = if number % 20 == 3 { 66 } else { 1 };
            events.push(accept(&pool, account, CREDIT, cents).await);
        }
        poison(&pool, 66).await;
        let slicing = async {
            slices(&worker, &events).await;
            heal(&pool).await;
        };
        let retrying = async {
            while parked(&pool).await > 0 || entries(&pool, account).await.len() < events.len() {
                if let Step::GaveUp = retrier.retries.step().await {
                    panic!("it would have healed")
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(
            PATIENCE,
            Box::pin(async { tokio::join!(slicing, retrying) }),
        )
        .await
        .expect("all are applied");
        assert_eq!(entries(&pool, account).await, ids(&events));
        assert_queues_are_whole(&pool).await;
        assert_books_balance(&pool).await;
    }
}

/// A session that holds an account's lock.
async fn hold(pool: &PgPool, account: AccountId) -> Transaction<'static, Postgres> {
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("UPDATE accounts SET updated_at = now() WHERE id = $1")
        .bind(account)
        .execute(&mut *holder)
        .await
        .unwrap();
    holder
}

/// Steps while somebody holds the account's lock, until a step waits for it; then the lock is let go.
async fn step_behind(pool: &PgPool, mut retrier: Retrier, account: AccountId) -> (Retrier, Step) {
    let holder = hold(pool, account).await;
    let stepping = tokio::spawn(async move {
        let mut step = Step::Busy;
        while step == Step::Busy {
            step = retrier.retries.step().await;
        }
        (retrier, step)
    });
    let_go_of_a_waiter(pool, holder).await;
    stepping.await.unwrap()
}

/// Lets go of a lock as soon as somebody waits for it.
async fn let_go_of_a_waiter(pool: &PgPool, holder: Transaction<'static, Postgres>) {
    let waiters = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("it waits for the lock", async || {
        count(pool, waiters).await > 0
    })
    .await;
    holder.commit().await.unwrap();
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_queue_comes_to_its_end_while_slices_park_behind_it_all_the_time(pool: PgPool) {
    const SLICE: usize = 20;
    // What a turn takes doubles up to four slices, and a slice comes between two turns.
    const TURNS_MAX: usize = 20;
    for level in LEVELS {
        let mut config = retry_config(&pool, level);
        config.slices.slice_events_max = u32::try_from(SLICE).unwrap();
        let mut retrier = Retrier::new(&config);
        let worker = worker_pool(&pool, level);
        let account = account(&pool, 0).await;
        let mut accepted = accept_many(&pool, account, 5 * SLICE).await;
        park(&pool, &accepted, NO_PAUSE).await;

        let mut turns = 0;
        while parked(&pool).await > 0 {
            turns += 1;
            assert!(turns <= TURNS_MAX, "{level:?}: the queue does not end");
            let step;
            (retrier, step) = step_behind(&pool, retrier, account).await;
            assert!(matches!(step, Step::Moved(_)), "{level:?}: {step:?}");
            let slice = accept_many(&pool, account, SLICE).await;
            apply_through(&worker, &slice).await;
            accepted.extend(slice);
        }

        assert_eq!(entries(&pool, account).await, ids(&accepted), "{level:?}");
        assert_queues_are_whole(&pool).await;
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_account_that_is_always_held_is_waited_for(pool: PgPool) {
    for level in LEVELS {
        let mut retrier = Retrier::new(&retry_config(&pool, level));
        let account = account(&pool, 0).await;
        let event = accept(&pool, account, CREDIT, 1).await;
        park(&pool, &[&event], NO_PAUSE).await;
        let holder = hold(&pool, account).await;
        for _ in 0..3 {
            assert_eq!(retrier.retries.step().await, Step::Busy);
        }
        // Whoever hangs is not waited for at once again, and later each time.
        assert_eq!(retrier.retries.step().await, Step::Busy);
        for _ in 0..6 {
            assert_eq!(retrier.retries.step().await, Step::Busy);
        }
        assert!(retrier.readiness.reasons().is_empty());
        let waiting = tokio::spawn(async move { retrier.retries.step().await });
        let_go_of_a_waiter(&pool, holder).await;
        assert!(matches!(waiting.await.unwrap(), Step::Moved(_)));
        assert_eq!(balance(&pool, account).await, (1, 1));
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_failure_that_cannot_be_written_down_is_told_until_it_can(pool: PgPool) {
    // With none left a head is given up at once.
    for (retries_max, table, end) in [
        (100, "parked_events", Step::Failed),
        (0, "dead_letters", Step::GaveUp),
    ] {
        let run = async |sql: String| {
            let sql = sqlx::AssertSqlSafe(sql);
            sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        };
        let mut config = retry_config(&pool, Isolation::Serializable);
        let options = (*pool.connect_options()).clone();
        config.database_url = options.options([("role", "postonce_worker")]).into();
        config.failures.systemic_failures_max = 3;
        config.failures.retries_max = retries_max;
        let mut retrier = Retrier::new(&config);
        for _ in 0..6 {
            let account = account(&pool, 0).await;
            let event = accept(&pool, account, CREDIT, 66).await;
            park(&pool, &[&event], NO_PAUSE).await;
        }
        poison(&pool, 66).await;
        let right = if end == Step::Failed {
            "UPDATE"
        } else {
            "INSERT"
        };
        run(format!("REVOKE {right} ON {table} FROM postonce_worker")).await;

        for _ in 0..20 {
            assert_eq!(retrier.retries.step().await, Step::StandingStill);
            let told = &retrier.readiness.reasons()["ledger"];
            assert!(told.contains("42501"), "{told}");
        }
        assert_eq!(attempts(&pool).await, [1; 6]);

        run(format!("GRANT {right} ON {table} TO postonce_worker")).await;
        assert_eq!(retrier.retries.step().await, end);
        assert!(retrier.readiness.reasons().is_empty());
        heal(&pool).await;
        retrier.drain().await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn parked_events_are_counted_for_the_gauge(pool: PgPool) {
    let worker = worker_pool(&pool, Isolation::Serializable);
    let account = account(&pool, 0).await;
    let events = [
        accept(&pool, account, CREDIT, 1).await,
        accept(&pool, account, CREDIT, 1).await,
    ];
    park(&pool, &events, NO_PAUSE).await;
    assert_eq!(
        worker::retry::gauge::count(&worker, PATIENCE)
            .await
            .unwrap(),
        2
    );
}
