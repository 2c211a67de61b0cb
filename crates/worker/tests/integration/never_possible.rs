//! Records that can never be applied: each becomes one dead letter, and its partition goes on.

use common::{
    outbox::CHANNEL,
    types::{AccountId, EventType, Lane, LaneSet},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::{PgPool, postgres::PgListener};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use worker::{
    consume::{Intake, SLICE_BYTES_MAX},
    event::{Event, Raw},
};

use crate::support::{kafka::*, *};

/// A row of `dead_letters`.
#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Letter {
    id: Uuid,
    account_id: Uuid,
    event_id: Option<Uuid>,
    transaction_id: Option<Uuid>,
    source_topic: String,
    source_partition: i32,
    source_offset: i64,
    attempts: i32,
    replay_count: i32,
    state: String,
    error_class: String,
    error_stage: String,
    error_message: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: String,
    has_hash: bool,
}

/// All dead letters, in the order of their records.
async fn letters(pool: &PgPool) -> Vec<Letter> {
    sqlx::query_as(
        "SELECT *, headers::text AS headers,
                value_sha256 = sha256(coalesce(value, '')) AS has_hash
           FROM (SELECT id, account_id, event_id, transaction_id, source_topic, source_partition,
                        source_offset, attempts, replay_count, state, error_class, error_stage,
                        error_message, key, value, headers::text, value_sha256
                   FROM dead_letters) AS letter
          ORDER BY source_partition, source_offset",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// The outbox rows that send dead letters: which, about what, and by which lane.
async fn announced(pool: &PgPool, config: &worker::config::Config) -> Vec<(Uuid, Uuid, i16)> {
    sqlx::query_as(
        "SELECT dead_letter_id, aggregate_id, lane FROM outbox_events
          WHERE topic = $1 AND payload IS NULL AND event_id = dead_letter_id ORDER BY seq",
    )
    .bind(&config.kafka.dead_letters_topic)
    .fetch_all(pool)
    .await
    .unwrap()
}

/// The record of an event with something else in it.
fn spoilt(event: &Event, spoil: Spoil) -> Raw {
    let mut record = Record {
        key: event.raw.key().map(<[u8]>::to_vec),
        value: event.raw.value().map(<[u8]>::to_vec),
        headers: Vec::new(),
    };
    for (name, value) in event.raw.headers().0 {
        record
            .headers
            .push((name, value.bytes().map(<[u8]>::to_vec)));
    }
    spoil(&mut record);
    record.raw()
}

type Spoil = fn(&mut Record);

struct Record {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    fn raw(&self) -> Raw {
        let headers = self.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        Raw::new(self.key.as_deref(), self.value.as_deref(), &headers, None)
    }

    fn set_header(&mut self, name: &str, value: &str) {
        let header = self.headers.iter_mut().find(|(known, _)| known == name);
        header.unwrap().1 = Some(value.as_bytes().to_vec());
    }

    fn set_field(&mut self, name: &str, value: serde_json::Value) {
        let mut json: serde_json::Value =
            serde_json::from_slice(self.value.as_ref().unwrap()).unwrap();
        json[name] = value;
        self.value = Some(json.to_string().into_bytes());
    }
}

/// What is wrong with a record, the class and the stage of its letter, and a part of its message.
const TABLE: [(Spoil, &str, &str, &str); 9] = [
    (
        |r| r.headers.clear(),
        "undecodable",
        "decode",
        "ce_specversion",
    ),
    (|r| r.value = None, "undecodable", "decode", "no value"),
    (
        |r| r.value = Some(b"\xff\x00".to_vec()),
        "undecodable",
        "decode",
        "unreadable",
    ),
    (
        |r| r.set_field("type", "REF\0UND".into()),
        "undecodable",
        "decode",
        "a value of the wrong kind",
    ),
    (|r| r.key = None, "undecodable", "decode", "key"),
    (
        |r| r.set_header("ce_type", EventType::TransactionFailed.as_str()),
        "undecodable",
        "decode",
        "does not belong",
    ),
    (
        |r| r.set_field("schema_version", 2.into()),
        "unknown_schema_version",
        "decode",
        "schema version 2",
    ),
    (
        |r| r.set_field("amount_cents", 1_000_000.into()),
        "mismatch",
        "compare",
        "amount_cents",
    ),
    (
        |r| {
            r.headers.push(("odd".to_owned(), Some(vec![0xff, 0x00])));
            r.set_field("currency", "USD".into());
        },
        "mismatch",
        "compare",
        "currency",
    ),
];

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn each_kind_is_one_dead_letter_however_often_it_comes_and_its_partition_goes_on(
    pool: PgPool,
) {
    for level in LEVELS {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let _recording = metrics::set_default_local_recorder(&recorder);
        sqlx::query("DELETE FROM dead_letters")
            .execute(&pool)
            .await
            .unwrap();
        sqlx::query("DELETE FROM outbox_events WHERE dead_letter_id IS NOT NULL")
            .execute(&pool)
            .await
            .unwrap();
        let stream = Stream::new(1).await;
        let account = account(&pool, 0).await;
        let mut events = Vec::new();
        for (spoil, ..) in TABLE {
            let event = accept(&pool, account, CREDIT, 1).await;
            stream.publish_raw(0, &spoilt(&event, spoil)).await;
            stream
                .publish(0, &accept(&pool, account, CREDIT, 10).await)
                .await;
            events.push(event);
        }
        let mut config = stream.config(&pool);
        config.slices.worker_isolation = level;
        let mut stepper = Stepper::join(&config);
        let tally = stepper.consume(18).await;
        assert_eq!((tally.applied, tally.dead), (9, 9));
        assert!(stepper.readiness.reasons().is_empty());
        stepper.leave().await;

        assert_eq!(stream.committed(0).await, Some(18));
        assert_eq!(balance(&pool, account).await, (90, 9));
        let found = letters(&pool).await;
        assert_eq!(found.len(), 9);
        for (number, (letter, event)) in found.iter().zip(&events).enumerate() {
            let (spoil, class, stage, message) = TABLE[number];
            let sent = spoilt(event, spoil);
            assert_eq!(letter.key.as_deref(), sent.key());
            assert_eq!(letter.value.as_deref(), sent.value());
            assert_eq!(
                letter.headers,
                serde_json::to_string(&sent.headers()).unwrap()
            );
            assert!(letter.has_hash);
            assert_eq!(
                (letter.error_class.as_str(), letter.error_stage.as_str()),
                (class, stage)
            );
            assert!(letter.error_message.contains(message), "{letter:?}");
            assert_eq!((letter.attempts, letter.replay_count), (1, 0));
            assert_eq!(
                (&letter.source_topic, letter.source_partition),
                (&stream.topic, 0)
            );
            assert_eq!(letter.source_offset, i64::try_from(number).unwrap() * 2);
            assert_eq!(letter.transaction_id, None);
            let claimed = sent.key().map_or(Uuid::nil(), |_| account.0);
            assert_eq!(letter.account_id, claimed);
            let has_id = !sent.headers().0.is_empty();
            assert_eq!(letter.event_id, has_id.then_some(event.id().0));
            // The transaction knows nothing of it.
            assert_eq!(status(&pool, event).await, ("PENDING".to_owned(), None));
        }
        let told = announced(&pool, &config).await;
        let expected = found.iter().map(|letter| {
            let lane = Lane::of(AccountId(letter.account_id)).number();
            (letter.id, letter.event_id.unwrap_or(letter.id), lane)
        });
        assert!(told.into_iter().eq(expected));
        let scrape = metrics.render();
        for (class, number) in [
            ("undecodable", 6),
            ("unknown_schema_version", 1),
            ("mismatch", 2),
        ] {
            let line = format!("dlq_messages_total{{class=\"{class}\"}} {number}");
            assert!(scrape.contains(&line), "{scrape}");
        }

        // All come again: nothing is written.
        let once = state(&pool).await;
        stream.set_committed(0, 0).await;
        let mut stepper = Stepper::join(&config);
        let tally = stepper.consume(18).await;
        stepper.leave().await;
        assert_eq!(tally.duplicate, 18);
        assert_eq!(state(&pool).await, once);

        // The genuine events are as good as before.
        for event in &events {
            stream.publish(0, event).await;
        }
        let mut stepper = Stepper::join(&config);
        stepper.consume(9).await;
        stepper.leave().await;
        for event in &events {
            assert_eq!(status(&pool, event).await.0, "PROCESSED");
        }
        assert_books_balance(&pool).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_record_that_dies_again_behind_a_replay_comes_back_to_its_own_letter(pool: PgPool) {
    for level in LEVELS {
        sqlx::query("DELETE FROM dead_letters")
            .execute(&pool)
            .await
            .unwrap();
        sqlx::query("DELETE FROM outbox_events WHERE dead_letter_id IS NOT NULL")
            .execute(&pool)
            .await
            .unwrap();
        let stream = Stream::new(1).await;
        let account = account(&pool, 0).await;
        let event = accept(&pool, account, CREDIT, 1).await;
        let record = spoilt(&event, |r| r.set_field("schema_version", 2.into()));
        stream.publish_raw(0, &record).await;
        let mut config = stream.config(&pool);
        config.slices.worker_isolation = level;
        let mut stepper = Stepper::join(&config);
        stepper.consume(1).await;
        let letter = letters(&pool).await.remove(0);

        // As a replay does it: the state, and the same bytes with the letter's id.
        let replayed = named(&record, letter.id);
        replay(&pool, letter.id).await;
        stream.publish_raw(0, &replayed).await;
        stream.publish_raw(0, &replayed).await;
        let tally = stepper.consume(2).await;
        assert_eq!((tally.dead, tally.duplicate), (1, 1));
        let again = letters(&pool).await;
        let expected = Letter {
            state: "DEAD".to_owned(),
            replay_count: 1,
            attempts: 2,
            ..letter
        };
        assert_eq!(again, [expected]);
        let id = again[0].id;
        let told = announced(&pool, &config).await;
        assert_eq!(told.iter().map(|row| row.0).collect::<Vec<_>>(), [id, id]);

        // A stranger that names the letter, with another value, has one of its own.
        replay(&pool, id).await;
        let other = spoilt(&event, |r| r.set_field("schema_version", 3.into()));
        stream.publish_raw(0, &named(&other, id)).await;
        // So has one that names the letter of a transaction, be its value the same.
        let transactions = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO dead_letters (id, account_id, event_id, transaction_id, attempts, state,
                    source_topic, error_class, error_stage, error_message, value, headers, value_sha256)
             SELECT $1, account_id, event_id, event_id, 6, 'REPLAYED', source_topic,
                    'retries_exhausted', 'apply', 'x', value, '[]', value_sha256
               FROM dead_letters WHERE id = $2",
        )
        .bind(transactions)
        .bind(id)
        .execute(&pool)
        .await
        .unwrap();
        stream.publish_raw(0, &named(&record, transactions)).await;
        let tally = stepper.consume(2).await;
        stepper.leave().await;
        assert_eq!(tally.dead, 2);
        let replayed = "SELECT count(*) FROM dead_letters WHERE state = 'REPLAYED'";
        assert_eq!(count(&pool, replayed).await, 2);
        assert_eq!(count(&pool, "SELECT count(*) FROM dead_letters").await, 4);
    }
}

/// The record with the header of a replay.
fn named(record: &Raw, id: Uuid) -> Raw {
    let mut headers = record.headers().0;
    headers.push(("dlq.id".to_owned(), Some(id.to_string().as_bytes()).into()));
    let pairs: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.bytes()))
        .collect();
    Raw::new(record.key(), record.value(), &pairs, None)
}

async fn replay(pool: &PgPool, id: Uuid) {
    sqlx::query("UPDATE dead_letters SET state = 'REPLAYED' WHERE id = $1")
        .bind(id)
        .execute(pool)
        .await
        .unwrap();
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_publisher_is_told_of_a_letters_lane(pool: PgPool) {
    let mut publisher = PgListener::connect_with(&pool).await.unwrap();
    publisher.listen(CHANNEL).await.unwrap();
    let stream = Stream::new(1).await;
    stream.publish_garbage(0).await;
    let worker = Running::start(&stream.config(&pool));
    let hint = timeout(PATIENCE, publisher.recv()).await.unwrap().unwrap();
    let lanes = LaneSet::from_iter([Lane::of(AccountId(Uuid::nil()))]);
    assert_eq!(hint.payload().parse(), Ok(lanes));
    worker.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn large_records_make_slices_of_few_and_are_kept_whole(pool: PgPool) {
    let stream = Stream::new(1).await;
    let large = Raw::new(None, Some(&vec![b'x'; 900_000]), &[], None);
    for _ in 0..12 {
        stream.publish_raw(0, &large).await;
    }
    let config = stream.config(&pool);
    let mut intake = Intake::join(&config.kafka, 1_000).unwrap();
    let never = CancellationToken::new();
    let mut records = 0;
    let read = timeout(PATIENCE, async {
        while records < 12 {
            let items = intake.collect(&never).await.items;
            let bytes: usize = items.iter().map(|item| item.raw().len()).sum();
            assert!(bytes <= SLICE_BYTES_MAX, "{bytes}");
            records += items.len();
        }
    });
    read.await.expect("all come");
    intake.leave().await;

    let mut stepper = Stepper::join(&config);
    assert_eq!(stepper.consume(12).await.dead, 12);
    stepper.leave().await;
    let whole = "SELECT count(*) FROM dead_letters WHERE octet_length(value) = 900000";
    assert_eq!(count(&pool, whole).await, 12);
    assert_eq!(stream.committed(0).await, Some(12));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_that_cannot_be_written_keeps_its_partition_waiting(pool: PgPool) {
    poison::run(
        &pool,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                AS 'BEGIN RAISE EXCEPTION ''no room''; END';
         CREATE TRIGGER refuse BEFORE INSERT ON dead_letters
                FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    let stream = Stream::new(1).await;
    stream.publish_garbage(0).await;
    let worker = Running::start(&stream.config(&pool));
    eventually("the ledger is not ready", async || {
        let reasons = worker.readiness.reasons();
        reasons
            .get("ledger")
            .is_some_and(|told| told.contains("no room"))
    })
    .await;
    assert_eq!(stream.committed(0).await, None);
    poison::run(&pool, "DROP TRIGGER refuse ON dead_letters").await;
    let written = "SELECT count(*) FROM dead_letters";
    eventually("it is written", async || count(&pool, written).await == 1).await;
    worker.stop().await;
    assert_eq!(stream.committed(0).await, Some(1));
}
