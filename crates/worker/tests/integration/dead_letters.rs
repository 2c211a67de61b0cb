//! Parked events that are given up.

use std::time::Duration;

use common::{
    db::Isolation,
    types::{AccountId, Lane, RecordHeaders},
};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;
use worker::{
    event::Event,
    retry::Step,
    slice::{self, Expected},
};

use crate::support::{parked::*, *};

const NO_PAUSE: Duration = Duration::ZERO;

#[derive(Debug, FromRow, PartialEq)]
struct Letter {
    id: Uuid,
    account_id: AccountId,
    event_id: Option<Uuid>,
    transaction_id: Option<Uuid>,
    state: String,
    source_topic: String,
    source_partition: Option<i32>,
    source_offset: Option<i64>,
    recorded_at: Option<chrono::DateTime<chrono::Utc>>,
    attempts: i32,
    replay_count: i32,
    error_class: String,
    error_stage: String,
    error_message: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: String,
    hash_fits: bool,
    failed_before_death: bool,
}

async fn letters(pool: &PgPool) -> Vec<Letter> {
    sqlx::query_as(
        "SELECT *, headers::text AS headers,
                value_sha256 = sha256(coalesce(value, '')) AS hash_fits,
                first_failed_at <= dead_at AS failed_before_death
           FROM (SELECT id, account_id, event_id, transaction_id, state, source_topic,
                        source_partition, source_offset, recorded_at, attempts, replay_count,
                        error_class, error_stage, error_message, key, value, value_sha256,
                        first_failed_at, dead_at FROM dead_letters) AS letter
           JOIN (SELECT id AS other, headers FROM dead_letters) AS headers ON other = letter.id
          ORDER BY id",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// The rows that bring letters to their topic: lane, key, letter.
async fn announced(pool: &PgPool) -> Vec<(i16, String, Uuid, Option<String>)> {
    sqlx::query_as(
        "SELECT lane, partition_key, dead_letter_id, payload::text FROM outbox_events
          WHERE topic = $1 ORDER BY seq",
    )
    .bind(DEAD_LETTERS)
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn is_closed(pool: &PgPool, event: &Event) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM processed_events WHERE event_id = $1)")
        .bind(event.transaction.transaction_id)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// What a replay by the api does to the rows, short of the event itself.
async fn replay(pool: &PgPool, event: &Event) {
    let id = event.transaction.transaction_id;
    for sql in [
        "UPDATE dead_letters SET state = 'REPLAYED' WHERE event_id = $1 AND state = 'DEAD'",
        "UPDATE transactions SET failure_reason = NULL WHERE id = $1",
        "DELETE FROM processed_events WHERE event_id = $1",
    ] {
        let done = sqlx::query(sql).bind(id).execute(pool).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{sql}");
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn after_its_retries_an_event_is_a_dead_letter_and_its_account_goes_on(pool: PgPool) {
    for level in LEVELS {
        sqlx::raw_sql(
            "TRUNCATE dead_letters; DELETE FROM outbox_events WHERE dead_letter_id IS NOT NULL",
        )
        .execute(&pool)
        .await
        .unwrap();
        let mut retrier = Retrier::new(&retry_config(&pool, level));
        let account = account(&pool, 0).await;
        let bad = accept(&pool, account, CREDIT, 66).await;
        let next = accept(&pool, account, CREDIT, 1).await;
        let record = Record {
            key: Some(vec![0xff, 0, 1]),
            value: Some(b"{\"odd\":  \"spaces\", \"nul\": \"\0\"}\xfe".to_vec()),
            headers: r#"[["ce_id","a"], ["x",{"base64":"/wA="}],["x",null]]"#,
            offset: 41,
        };
        park_record(&pool, &bad.transaction, &record, NO_PAUSE).await;
        park(&pool, &[&next], NO_PAUSE).await;
        poison(&pool, 66).await;

        let steps = retrier.drain().await;

        // The first attempt was the slice's; the last of the five retries gave up.
        let failed = steps.iter().filter(|step| **step == Step::Failed).count();
        let gave_up = steps.iter().filter(|step| **step == Step::GaveUp).count();
        assert_eq!((failed, gave_up), (4, 1));
        let letters = letters(&pool).await;
        let expected = Letter {
            id: letters[0].id,
            account_id: account,
            event_id: Some(bad.transaction.transaction_id.0),
            transaction_id: Some(bad.transaction.transaction_id.0),
            state: "DEAD".to_owned(),
            source_topic: "transactions".to_owned(),
            source_partition: Some(3),
            source_offset: Some(41),
            recorded_at: Some("2026-11-21T10:00:00Z".parse().unwrap()),
            attempts: 6,
            replay_count: 0,
            error_class: "retries_exhausted".to_owned(),
            error_stage: "apply".to_owned(),
            error_message: letters[0].error_message.clone(),
            key: record.key,
            value: record.value,
            headers: record.headers.to_owned(),
            hash_fits: true,
            failed_before_death: true,
        };
        assert_eq!(letters, [expected]);
        let message = &letters[0].error_message;
        assert!(
            message.contains("poison for account") && message.contains("P0001"),
            "{message}"
        );
        let row = (
            Lane::of(account).number(),
            account.to_string(),
            letters[0].id,
            None,
        );
        assert_eq!(announced(&pool).await, [row]);

        let dead = ("PROCESSING".to_owned(), Some("dead_lettered".to_owned()));
        assert_eq!(status(&pool, &bad).await, dead);
        assert!(is_closed(&pool, &bad).await);
        assert_eq!(status(&pool, &next).await.0, "PROCESSED");
        assert_queues_are_whole(&pool).await;
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn without_retries_an_event_still_has_its_first_one_in_the_queue(pool: PgPool) {
    let mut config = retry_config(&pool, Isolation::Serializable);
    config.failures.retries_max = 0;
    let mut retrier = Retrier::new(&config);
    let account = account(&pool, 0).await;
    let first = accept(&pool, account, CREDIT, 1).await;
    let behind = accept(&pool, account, CREDIT, 66).await;
    park(&pool, &[&first, &behind], NO_PAUSE).await;
    poison(&pool, 66).await;
    retrier.drain().await;
    assert_eq!(status(&pool, &first).await.0, "PROCESSED");
    assert_eq!(letters(&pool).await[0].attempts, 1);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_event_that_dies_again_comes_back_to_its_own_letter(pool: PgPool) {
    let mut retrier = Retrier::new(&retry_config(&pool, Isolation::Serializable));
    let account = account(&pool, 0).await;
    let bad = accept(&pool, account, CREDIT, 66).await;
    poison(&pool, 66).await;
    park(&pool, &[&bad], NO_PAUSE).await;
    retrier.drain().await;
    let first = letters(&pool).await;

    for deaths in 1..=2 {
        replay(&pool, &bad).await;
        let mut again = bad.clone();
        again.place.offset = 1_000 + i64::from(deaths);
        park(&pool, &[&again], NO_PAUSE).await;
        retrier.drain().await;
        let letters = letters(&pool).await;
        assert_eq!(letters.len(), 1);
        assert_eq!(
            (letters[0].id, letters[0].replay_count),
            (first[0].id, deaths)
        );
        assert_eq!(letters[0].state, "DEAD");
        // Where its record stood first.
        assert_eq!(letters[0].source_offset, first[0].source_offset);
        assert_eq!(
            announced(&pool).await.len(),
            usize::try_from(deaths).unwrap() + 1
        );
    }
    let dead = ("PROCESSING".to_owned(), Some("dead_lettered".to_owned()));
    assert_eq!(status(&pool, &bad).await, dead);

    heal(&pool).await;
    replay(&pool, &bad).await;
    park(&pool, &[&bad], NO_PAUSE).await;
    retrier.drain().await;
    assert_eq!(status(&pool, &bad).await, ("PROCESSED".to_owned(), None));
    assert_eq!(letters(&pool).await[0].state, "REPLAYED");
    assert_books_balance(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_event_whose_row_is_gone_is_a_mismatch_and_closes_no_transaction(pool: PgPool) {
    let mut retrier = Retrier::new(&retry_config(&pool, Isolation::Serializable));
    let account = account(&pool, 0).await;
    let sound = accept(&pool, account, CREDIT, 1).await;
    let gone = accept(&pool, account, CREDIT, 2).await;
    let behind = accept(&pool, account, CREDIT, 4).await;
    park(&pool, &[&sound, &gone, &behind], NO_PAUSE).await;
    sqlx::query("DELETE FROM transactions WHERE id = $1")
        .bind(gone.transaction.transaction_id)
        .execute(&pool)
        .await
        .unwrap();
    retrier.drain().await;
    let letters = letters(&pool).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].event_id, Some(gone.transaction.transaction_id.0));
    assert_eq!(letters[0].transaction_id, None);
    assert_eq!(
        (&*letters[0].error_class, &*letters[0].error_stage),
        ("mismatch", "compare")
    );
    assert_eq!(balance(&pool, account).await, (5, 2));
    assert!(!is_closed(&pool, &gone).await);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_event_that_was_a_mismatch_once_still_gets_its_own_letter(pool: PgPool) {
    // A restored database lacked its row; then the row came back, and the group was rewound.
    let mut config = retry_config(&pool, Isolation::Serializable);
    config.failures.retries_max = 0;
    config.kafka.dead_letter_rejections = true;
    let mut retrier = Retrier::new(&config);
    let account = account(&pool, 0).await;
    let sick = accept(&pool, account, CREDIT, 66).await;
    let refused = accept(&pool, account, DEBIT, 5).await;
    for event in [&sick, &refused] {
        sqlx::query(
            "INSERT INTO dead_letters (id, account_id, event_id, source_topic, source_partition,
                    source_offset, first_failed_at, attempts, error_class, error_stage, error_message,
                    value, headers,
                    value_sha256)
             VALUES (gen_random_uuid(), $1, $2, 'transactions', 3, $3, now(), 1, 'mismatch', 'compare', '',
                     $4, '[]', sha256($4))",
        )
        .bind(account)
        .bind(event.transaction.transaction_id)
        .bind(event.place.offset)
        .bind(serde_json::to_vec(&event.transaction).unwrap())
        .execute(&pool)
        .await
        .unwrap();
    }
    poison(&pool, 66).await;
    park(&pool, &[&sick, &refused], NO_PAUSE).await;
    retrier.drain().await;
    let mut classes: Vec<_> = letters(&pool)
        .await
        .into_iter()
        .map(|l| l.error_class)
        .collect();
    classes.sort();
    assert_eq!(
        classes,
        ["mismatch", "mismatch", "rejected", "retries_exhausted"]
    );
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_that_cannot_be_written_stops_the_loop_and_loses_nothing(pool: PgPool) {
    let mut config = retry_config(&pool, Isolation::Serializable);
    config.failures.retries_max = 0;
    let mut retrier = Retrier::new(&config);
    let account = account(&pool, 0).await;
    let bad = accept(&pool, account, CREDIT, 66).await;
    park(&pool, &[&bad], NO_PAUSE).await;
    poison(&pool, 66).await;
    // Swallowed, not refused: only the count of rows tells.
    sqlx::raw_sql(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER swallow BEFORE INSERT ON outbox_events
                FOR EACH ROW EXECUTE FUNCTION swallow()",
    )
    .execute(&pool)
    .await
    .unwrap();
    for _ in 0..4 {
        assert_eq!(retrier.retries.step().await, Step::StandingStill);
    }
    assert_eq!(parked(&pool).await, 1);
    assert!(letters(&pool).await.is_empty());
    assert_eq!(status(&pool, &bad).await, ("PROCESSING".to_owned(), None));

    sqlx::raw_sql("DROP TRIGGER swallow ON outbox_events")
        .execute(&pool)
        .await
        .unwrap();
    retrier.until(|step| step == Step::GaveUp).await;
    assert!(retrier.readiness.reasons().is_empty());
    assert_eq!(letters(&pool).await.len(), 1);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_rejection_is_copied_where_that_is_asked_for(pool: PgPool) {
    for asked_for in [true, false] {
        let mut config = retry_config(&pool, Isolation::Serializable);
        config.kafka.dead_letter_rejections = asked_for;
        let mut retrier = Retrier::new(&config);
        let account = account(&pool, 0).await;
        let too_much = accept(&pool, account, DEBIT, 5).await;
        let credit = accept(&pool, account, CREDIT, 5).await;
        let record = Record {
            value: Some(vec![0xfe, 0]),
            ..Record::of(&too_much)
        };
        park_record(&pool, &too_much.transaction, &record, NO_PAUSE).await;
        park(&pool, &[&credit], NO_PAUSE).await;
        sqlx::query("TRUNCATE dead_letters")
            .execute(&pool)
            .await
            .unwrap();

        retrier.drain().await;

        let failed = ("FAILED".to_owned(), Some("insufficient_funds".to_owned()));
        assert_eq!(status(&pool, &too_much).await, failed);
        let letters = letters(&pool).await;
        assert_eq!(letters.len(), usize::from(asked_for));
        if let [letter] = &*letters {
            assert_eq!(
                (&*letter.error_class, &*letter.error_stage),
                ("rejected", "apply")
            );
            assert_eq!(letter.error_message, "insufficient_funds");
            assert_eq!(letter.value.as_deref(), Some(&[0xfe, 0][..]));
            assert!(letter.hash_fits);
            assert_eq!(
                letter.transaction_id,
                Some(too_much.transaction.transaction_id.0)
            );
            assert_eq!(announced(&pool).await[0].2, letter.id);
        }
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_rejection_in_a_slice_is_copied_where_that_is_asked_for(pool: PgPool) {
    for expected in [Expected::New, Expected::Any] {
        for asked_for in [true, false] {
            sqlx::raw_sql(
                "TRUNCATE dead_letters; DELETE FROM outbox_events WHERE dead_letter_id IS NOT NULL",
            )
            .execute(&pool)
            .await
            .unwrap();
            let worker = worker_pool(&pool, Isolation::Serializable);
            let mut kafka = topics();
            DEAD_LETTERS.clone_into(&mut kafka.dead_letters_topic);
            kafka.dead_letter_rejections = asked_for;
            let account = account(&pool, 0).await;
            let too_much = accept(&pool, account, DEBIT, 5).await;
            let credit = accept(&pool, account, CREDIT, 5).await;

            let items = items(&[&too_much, &credit]);
            slice::apply(&worker, PATIENCE, &kafka, &items, expected)
                .await
                .unwrap();
            // A repeat makes no second one.
            slice::apply(&worker, PATIENCE, &kafka, &items, expected)
                .await
                .unwrap();

            let letters = letters(&pool).await;
            assert_eq!(letters.len(), usize::from(asked_for));
            assert_eq!(announced(&pool).await.len(), usize::from(asked_for));
            if let [letter] = &*letters {
                assert_eq!(
                    (&*letter.error_class, &*letter.error_stage),
                    ("rejected", "apply")
                );
                assert_eq!(letter.error_message, "insufficient_funds");
                assert_eq!(letter.source_offset, Some(too_much.place.offset));
                assert_eq!(letter.key.as_deref(), too_much.raw.key());
                assert_eq!(letter.value.as_deref(), too_much.raw.value());
                let headers: RecordHeaders = serde_json::from_str(&letter.headers).unwrap();
                assert_eq!(headers, too_much.raw.headers());
                assert!(letter.hash_fits);
            }
            assert_books_balance(&pool).await;
        }
    }
}
