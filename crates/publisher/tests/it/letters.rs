use common::types::{AccountId, Lane};
use rdkafka::{Message, message::OwnedMessage};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    log::{Log, headers, identity, last_header},
    support::{PARTITIONS, World, account_in, create_topic, eventually, noise, payloads},
};

type Bytes = Option<Vec<u8>>;

/// A record that was given up.
#[derive(Clone, Debug)]
struct Record {
    key: Bytes,
    value: Bytes,
    /// As they stand in the database.
    headers: &'static str,
    /// As they are on the wire.
    sent_headers: Vec<(&'static str, Bytes)>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "what has bytes stands beside what has none"
)]
fn bytes(bytes: &[u8]) -> Bytes {
    Some(bytes.to_vec())
}

/// Records of every shape that Kafka knows.
fn records() -> [Record; 4] {
    let event = Record {
        key: bytes(b"0193"),
        value: bytes(b"{\"a\":  1}\n"),
        headers: r#"[["ce_id","x"],["ce_type","transaction.created"]]"#,
        sent_headers: vec![
            ("ce_id", bytes(b"x")),
            ("ce_type", bytes(b"transaction.created")),
        ],
    };
    let odd = Record {
        key: bytes(&[0xff, 0x00, 0xfe]),
        value: bytes(&[0x00, 0x80, 0xff]),
        headers: r#"[["h",{"base64":"/wA="}],["g","a"],["h",null],["h",""],["h",{"base64":"/wA="}]]"#,
        sent_headers: vec![
            ("h", bytes(&[0xff, 0x00])),
            ("g", bytes(b"a")),
            ("h", None),
            ("h", bytes(b"")),
            ("h", bytes(&[0xff, 0x00])),
        ],
    };
    let tombstone = Record {
        value: None,
        ..event.clone()
    };
    let nothing = Record {
        key: None,
        value: bytes(b""),
        headers: "[]",
        sent_headers: Vec::new(),
    };
    [event, odd, tombstone, nothing]
}

/// Writes a dead letter as the worker does, and an outbox row that names it.
async fn bury(world: &World, account: AccountId, topic: &str, record: &Record) -> Uuid {
    let id = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO dead_letters (id, account_id, event_id, attempts, replay_count, recorded_at,
                                   first_failed_at, source_topic, source_partition, source_offset,
                                   error_class, error_stage, error_message, key, value, headers,
                                   value_sha256)
         SELECT $1, $2, $1, 6, 2, '2026-11-21T10:00:00.125Z', '2026-11-21T10:00:00.140211Z', $3, 5,
                1042 + count(*), 'retries_exhausted', 'apply', 'no good', $4, $5, $6::text::json,
                 sha256(coalesce($5, ''))
           FROM dead_letters",
    )
    .bind(id)
    .bind(account)
    .bind(&world.transactions)
    .bind(&record.key)
    .bind(&record.value)
    .bind(record.headers)
    .execute(&world.pool)
    .await
    .unwrap();
    enqueue(world, account, topic, id).await;
    id
}

async fn enqueue(world: &World, account: AccountId, topic: &str, letter: Uuid) {
    sqlx::query(
        "INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic, partition_key,
                                    aggregate_type, event_type, dead_letter_id)
         VALUES ($1, $2, $1, $3, $4, $2::text, 'dead_letter', 'dead_letter', $1)",
    )
    .bind(letter)
    .bind(account)
    .bind(Lane::of(account).number())
    .bind(topic)
    .execute(&world.pool)
    .await
    .unwrap();
}

fn owned(headers: &[(&str, Bytes)]) -> Vec<(String, Bytes)> {
    let headers = headers.iter();
    headers
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

fn find(log: &Log, letter: Uuid) -> &OwnedMessage {
    let mut records = log.records.iter();
    records
        .find(|record| last_header(record, "dlq.id") == Some(letter.to_string()))
        .expect("the letter was sent")
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_dead_letter_is_the_record_byte_for_byte_and_what_is_known_of_it(pool: PgPool) {
    let world = World::new(pool);
    let account = account_in(11);
    let publisher = world.publisher(&[]);
    let mut buried = Vec::new();
    for record in records() {
        let id = bury(&world, account, &world.dead_letters, &record).await;
        buried.push((id, record));
    }
    world.all_published().await;
    publisher.stop().await;
    let mut log = Log::of(&world.dead_letters);
    let ids: Vec<_> = buried.iter().map(|(id, _)| *id).collect();
    log.read_letters(&ids).await;
    for ((id, record), offset) in buried.into_iter().zip(1042..) {
        let offset = i32::to_string(&offset);
        let sent = find(&log, id);
        assert_eq!(sent.partition(), 11 % PARTITIONS);
        assert_eq!(sent.key(), record.key.as_deref(), "{record:?}");
        assert_eq!(sent.payload(), record.value.as_deref(), "{record:?}");
        let (id, topic) = (id.to_string(), world.transactions.clone());
        let mut expected = owned(&record.sent_headers);
        expected.extend(owned(&[
            ("dlq.id", bytes(id.as_bytes())),
            ("dlq.original.topic", bytes(topic.as_bytes())),
            ("dlq.original.partition", bytes(b"5")),
            ("dlq.original.offset", bytes(offset.as_bytes())),
            (
                "dlq.original.timestamp",
                bytes(b"2026-11-21T10:00:00.125000Z"),
            ),
            ("dlq.error.class", bytes(b"retries_exhausted")),
            ("dlq.error.message", bytes(b"no good")),
            ("dlq.error.stage", bytes(b"apply")),
            ("dlq.attempts", bytes(b"6")),
            ("dlq.first_failed_at", bytes(b"2026-11-21T10:00:00.140211Z")),
            ("dlq.replay_count", bytes(b"2")),
        ]));
        assert_eq!(headers(sent), expected);
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replay_is_the_record_byte_for_byte_in_its_place_in_the_lane(pool: PgPool) {
    let world = World::new(pool);
    let account = account_in(11);
    let before = world.append(account, &payloads(3)).await;
    let mut replays = Vec::new();
    for record in records() {
        let id = bury(&world, account, &world.transactions, &record).await;
        replays.push((id, record));
    }
    let behind = world.append(account, &payloads(3)).await;
    let publisher = world.publisher(&[]);
    world.all_published().await;
    publisher.stop().await;
    let mut log = Log::of(&world.transactions);
    let ids = replays.iter().map(|(id, _)| *id);
    let ids: Vec<_> = before.iter().copied().chain(ids).chain(behind).collect();
    log.read_letters(&ids).await;
    log.records.sort_by_key(Message::offset);
    let sent = log.distinct();
    let known: Vec<_> = sent.iter().map(|record| identity(record)).collect();
    let expected: Vec<_> = ids.iter().map(Uuid::to_string).collect();
    assert_eq!(known, expected, "in their order");
    for (sent, (id, record)) in sent[3..7].iter().zip(&replays) {
        assert_eq!(sent.key(), record.key.as_deref());
        assert_eq!(sent.payload(), record.value.as_deref());
        let mut expected = owned(&record.sent_headers);
        let id = id.to_string();
        expected.extend(owned(&[
            ("dlq.id", bytes(id.as_bytes())),
            ("dlq.replay_count", bytes(b"2")),
        ]));
        assert_eq!(headers(sent), expected);
        assert_eq!(sent.partition(), 11 % PARTITIONS);
    }
}

/// First more letters than one claim takes, then fewer, in one lane, events between them.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn many_letters_and_events_of_one_lane_leave_in_its_order(pool: PgPool) {
    let world = World::new(pool);
    let account = account_in(11);
    let [record, ..] = records();
    let (mut letters, mut events) = (Vec::new(), Vec::new());
    for (round, count) in [150, 15, 1, 15, 70].into_iter().enumerate() {
        for _ in 0..count {
            letters.push(bury(&world, account, &world.dead_letters, &record).await);
        }
        events.extend(world.append(account, &payloads(round)).await);
    }
    let publisher = world.publisher(&[]);
    world.all_published().await;
    publisher.stop().await;
    let mut log = Log::of(&world.transactions);
    log.read_all(&events).await;
    assert_eq!(log.first_occurrences(account), events);
    let mut log = Log::of(&world.dead_letters);
    log.read_letters(&letters).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_whose_dead_letter_does_not_exist_stops_its_lane_only(pool: PgPool) {
    let world = World::new(pool);
    let [record, ..] = records();
    let (stopped, sound) = (account_in(11), account_in(12));
    let id = Uuid::now_v7();
    enqueue(&world, stopped, &world.dead_letters, id).await;
    let behind = bury(&world, stopped, &world.dead_letters, &record).await;
    let other = bury(&world, sound, &world.dead_letters, &record).await;
    let publisher = world.publisher(&[]);
    publisher
        .unready("lanes", "its dead letter does not exist")
        .await;
    eventually("the other lane is published", || async {
        world.pending().await == 2
    })
    .await;
    let statement = format!("DELETE FROM outbox_events WHERE dead_letter_id = '{id}'");
    world.execute(&statement).await;
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
    let mut log = Log::of(&world.dead_letters);
    log.read_letters(&[behind, other]).await;
}

/// Publishes one letter and something behind it in its lane, with a small limit for records of the
/// topic of dead letters; the answer is the letter's record.
async fn publish_letter(pool: PgPool, limit: &str, record: &Record) -> OwnedMessage {
    let world = World::new(pool);
    for topic in [&world.transactions, &world.results] {
        create_topic(topic, PARTITIONS, &[]).await;
    }
    let limits = [("max.message.bytes", limit)];
    create_topic(&world.dead_letters, PARTITIONS, &limits).await;
    let account = account_in(11);
    let id = bury(&world, account, &world.dead_letters, record).await;
    let behind = world.append(account, &payloads(3)).await;
    let publisher = world.publisher(&[]);
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
    let mut log = Log::of(&world.transactions);
    log.read_all(&behind).await;
    let letters = "SELECT count(*) FROM dead_letters";
    assert_eq!(world.number(letters).await, 1, "no letter of a letter");
    let mut log = Log::of(&world.dead_letters);
    log.read_letters(&[id]).await;
    find(&log, id).clone()
}

fn of_value(bytes: usize) -> Record {
    let [event, ..] = records();
    Record {
        value: Some(noise(bytes).into_bytes()),
        ..event
    }
}

fn of_headers(bytes: usize) -> Record {
    let [event, ..] = records();
    let headers = format!(r#"[["long", {:?}]]"#, noise(bytes).replace('"', ""));
    Record {
        headers: headers.leak(),
        ..event
    }
}

fn assert_without_value(sent: &OwnedMessage, record: &Record) {
    assert_eq!((sent.key(), sent.payload()), (record.key.as_deref(), None));
    assert_eq!(headers(sent)[..2], owned(&record.sent_headers));
    assert_eq!(last_header(sent, "dlq.truncated").unwrap(), "true");
    assert_eq!(last_header(sent, "dlq.attempts").unwrap(), "6");
}

fn assert_bare(sent: &OwnedMessage) {
    assert_eq!((sent.key(), sent.payload()), (None, None));
    let names: Vec<String> = headers(sent).into_iter().map(|(name, _)| name).collect();
    assert!(
        names.iter().all(|name| name.starts_with("dlq.")),
        "{names:?}"
    );
    assert_eq!(last_header(sent, "dlq.truncated").unwrap(), "true");
    assert_eq!(last_header(sent, "dlq.attempts").unwrap(), "6");
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_too_large_to_send_goes_without_its_value(pool: PgPool) {
    let record = of_value(3_000);
    let sent = publish_letter(pool, "2000", &record).await;
    assert_without_value(&sent, &record);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_whose_headers_are_too_large_goes_without_all_that_was_its_own(pool: PgPool) {
    let sent = publish_letter(pool, "2000", &of_headers(3_000)).await;
    assert_bare(&sent);
}

/// The limit is below the smallest that librdkafka can be told, so the broker itself says no.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_that_the_broker_refuses_goes_without_its_value(pool: PgPool) {
    let record = of_value(400);
    let sent = publish_letter(pool, "700", &record).await;
    assert_without_value(&sent, &record);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_that_the_broker_refuses_twice_goes_without_all_that_was_its_own(pool: PgPool) {
    let sent = publish_letter(pool, "700", &of_headers(400)).await;
    assert_bare(&sent);
}
