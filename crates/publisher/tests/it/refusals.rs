use std::slice::from_ref;

use common::{
    telemetry::Metrics,
    types::{AccountId, RecordHeaders},
};
use rdkafka::Message;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    lag::{metrics, sum},
    log::{Log, last_header, record_count},
    support::{
        PARTITIONS, World, account_in, create_topic, delete_topic, eventually, noise, payloads,
        set_topic,
    },
};

const LETTERS: &str = "SELECT count(*) FROM dead_letters";

/// Topics with a small limit for events, and none for dead letters.
async fn create_topics(world: &World, limit: &str) {
    for topic in [&world.transactions, &world.results] {
        create_topic(topic, PARTITIONS, &[("max.message.bytes", limit)]).await;
    }
    create_topic(&world.dead_letters, PARTITIONS, &[]).await;
}

async fn raise_limits(world: &World) {
    for topic in [&world.transactions, &world.results] {
        set_topic(topic, "max.message.bytes", "1048588").await;
    }
}

async fn dead_letter(world: &World) -> (Uuid, String, i32) {
    sqlx::query_as("SELECT id, state, replay_count FROM dead_letters")
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

fn dead_lettered() -> (String, Option<String>) {
    ("PROCESSING".to_owned(), Some("dead_lettered".to_owned()))
}

async fn assert_no_letter(world: &World) {
    assert_eq!(world.number(LETTERS).await, 0);
    let suspended = "SELECT count(*) FROM transactions WHERE status <> 'PENDING'";
    assert_eq!(world.number(suspended).await, 0);
}

#[derive(sqlx::FromRow)]
struct Letter {
    id: Uuid,
    account_id: AccountId,
    event_id: Uuid,
    transaction_id: Uuid,
    source_partition: Option<i32>,
    source_offset: Option<i64>,
    source_topic: String,
    state: String,
    error_class: String,
    error_stage: String,
    error_message: String,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: String,
    right_hash: bool,
}

async fn letter_of(world: &World) -> Letter {
    sqlx::query_as(
        "SELECT *, headers::text, value_sha256 = sha256(value) AS right_hash FROM dead_letters",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap()
}

/// The letter is the record as it would have been sent.
async fn assert_letter(world: &World, account: AccountId, event: Uuid, payload: &str) {
    let letter = letter_of(world).await;
    assert_eq!(letter.account_id, account);
    assert_eq!((letter.event_id, letter.transaction_id), (event, event));
    assert_eq!(
        (letter.source_partition, letter.source_offset),
        (None, None)
    );
    assert_eq!(letter.source_topic, world.transactions);
    assert_eq!(letter.state, "DEAD");
    assert_eq!(letter.error_class, "refused_by_broker");
    assert_eq!(letter.error_stage, "publish");
    assert!(
        letter.error_message.contains("too large"),
        "{}",
        letter.error_message
    );
    assert_eq!(letter.key, account.to_string().into_bytes());
    assert_eq!(letter.value, payload.as_bytes());
    assert!(letter.right_hash);
    let headers: RecordHeaders = serde_json::from_str(&letter.headers).unwrap();
    let names: Vec<&str> = headers.0.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "ce_id",
            "ce_type",
            "ce_source",
            "ce_specversion",
            "ce_time",
            "content-type"
        ]
    );
    assert_eq!(headers.0[0].1.bytes(), Some(event.to_string().as_bytes()));
    let mut log = Log::of(&world.dead_letters);
    log.read_letters(&[letter.id]).await;
    let sent = &log.records[0];
    assert_eq!(last_header(sent, "dlq.id"), Some(letter.id.to_string()));
    assert_eq!(
        last_header(sent, "dlq.error.class"),
        Some(letter.error_class)
    );
    assert_eq!(last_header(sent, "dlq.original.offset"), None);
}

/// The records of each topic, and the dead letter. A repeat counts as well, so there may be more of them
/// than rows, but no more than the topic holds.
fn assert_counted(metrics: &Metrics, world: &World) {
    for (topic, rows) in [(&world.transactions, 122), (&world.dead_letters, 1)] {
        let acknowledged = format!(r#"topic="{topic}",result="acknowledged""#);
        let counted = sum(metrics, "outbox_published_total", &acknowledged).unwrap();
        let records = i32::try_from(record_count(topic)).unwrap();
        assert!(
            (f64::from(rows)..=f64::from(records)).contains(&counted),
            "{topic}: {counted} of {rows} rows and {records} records"
        );
    }
    // Other tests of this process count theirs here, too.
    let class = r#"class="refused_by_broker""#;
    assert!(sum(metrics, "dlq_messages_total", class) >= Some(1.0));
}

/// Rows before and behind one that is too large, in lane 5, and rows in other lanes, two of which
/// share lane 5's partition.
async fn becomes_a_letter_and_its_lane_goes_on(world: World, culprit: String) {
    let metrics = metrics();
    let account = account_in(5);
    let mut events = world.append(account, &payloads(2)).await;
    let [refused] = world.append(account, from_ref(&culprit)).await[..] else {
        panic!("one row")
    };
    events.extend(world.append(account, &payloads(40)).await);
    for lane in [4, 6, 13, 21] {
        world.append(account_in(lane), &payloads(20)).await;
    }
    world.accept_all().await;
    let publisher = world.publisher(&[]);
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;

    let mut log = Log::of(&world.transactions);
    log.read_all(&events).await;
    assert_eq!(log.first_occurrences(account), events, "in their order");
    assert_letter(&world, account, refused, &culprit).await;
    assert_eq!(world.standing(refused).await, dead_lettered());
    let closed = format!(
        "SELECT count(*) FROM processed_events
          WHERE (event_id, account_id, transaction_id) = ('{refused}', '{account}', '{refused}')"
    );
    assert_eq!(world.number(&closed).await, 1);
    let suspended = "SELECT count(*) FROM transactions WHERE status <> 'PENDING'";
    assert_eq!(world.number(suspended).await, 1, "no other one");
    assert_counted(metrics, &world);
    // It is kept as published rows are, and says why it was not sent.
    let told = format!("event_id = '{refused}' AND last_error LIKE '%too large%'");
    assert_eq!(world.count(&told).await, 1);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_too_large_to_send_becomes_a_dead_letter_and_its_lane_goes_on(pool: PgPool) {
    let world = World::new(pool);
    create_topics(&world, "4000").await;
    becomes_a_letter_and_its_lane_goes_on(world, noise(5_000)).await;
}

/// The topic's limit is below the smallest that librdkafka can be told, so the broker itself says
/// no, to a whole batch.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_the_broker_refuses_becomes_a_dead_letter_and_its_lane_goes_on(pool: PgPool) {
    let world = World::new(pool);
    create_topics(&world, "600").await;
    becomes_a_letter_and_its_lane_goes_on(world, noise(550)).await;
}

/// A broker takes any sequence number from a producer it does not know yet, so a new producer's
/// second request could be stored although its first was refused.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_refused_row_that_is_a_producers_first_does_not_spoil_the_order(pool: PgPool) {
    let world = World::new(pool);
    create_topics(&world, "600").await;
    let account = account_in(5);
    world.append(account, &[noise(550)]).await;
    let events = world.append(account, &payloads(200)).await;
    world.accept_all().await;
    let publisher = world.publisher(&["--outbox-retention=0"]);
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
    let mut log = Log::of(&world.transactions);
    log.read_all(&events).await;
    assert_eq!(log.first_occurrences(account), events);
    assert_eq!(world.number(LETTERS).await, 1);
    assert_eq!(world.count("true").await, 0, "its row is removed");
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_result_that_is_refused_becomes_a_letter_and_its_transaction_stays(pool: PgPool) {
    let world = World::new(pool);
    create_topics(&world, "4000").await;
    let account = account_in(5);
    let events = world.append(account, &[noise(5_000)]).await;
    world.accept_all().await;
    let of_result = format!(
        "UPDATE outbox_events SET event_type = 'transaction.processed', topic = '{}'",
        world.results
    );
    world.execute(&of_result).await;
    let publisher = world.publisher(&[]);
    world.all_published().await;
    publisher.stop().await;
    let letters = "SELECT count(*) FROM dead_letters
                    WHERE transaction_id IS NULL AND event_id IS NOT NULL";
    assert_eq!(world.number(letters).await, 1);
    assert_eq!(
        world.standing(events[0]).await,
        ("PENDING".to_owned(), None)
    );
    assert_eq!(
        world.number("SELECT count(*) FROM processed_events").await,
        0
    );
}

/// A mark was lost, and the limit lowered meanwhile: nobody waits for this row.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_refused_row_whose_event_was_sent_before_makes_no_letter(pool: PgPool) {
    let world = World::new(pool);
    create_topics(&world, "4000").await;
    let account = account_in(5);
    let events = world.append(account, &[noise(5_000), noise(5_000)]).await;
    let behind = world.append(account, &payloads(1)).await;
    world.accept_all().await;
    let posted = format!(
        "UPDATE transactions SET status = 'PROCESSED', processed_at = now() WHERE id = '{}'",
        events[0]
    );
    world.execute(&posted).await;
    let parked = format!(
        "INSERT INTO parked_events (account_id, event_id, source_topic, source_partition,
                                    source_offset, headers)
         VALUES ('{account}', '{}', 't', 0, 0, '[]')",
        events[1]
    );
    world.execute(&parked).await;
    let publisher = world.publisher(&[]);
    world.all_published().await;
    publisher.stop().await;
    assert_eq!(world.number(LETTERS).await, 0);
    assert_eq!(world.standing(events[0]).await.0, "PROCESSED");
    assert_eq!(world.standing(events[1]).await.0, "PENDING");
    let mut log = Log::of(&world.transactions);
    log.read_all(&behind).await;
}

/// What the api does for a replay.
async fn replay(world: &World, letter: Uuid) {
    let statements = [
        format!(
            "UPDATE dead_letters SET state = 'REPLAYED' WHERE id = '{letter}' AND state = 'DEAD'"
        ),
        format!(
            "UPDATE transactions SET failure_reason = NULL
              WHERE id = (SELECT transaction_id FROM dead_letters WHERE id = '{letter}')"
        ),
        "DELETE FROM processed_events".to_owned(),
        format!(
            "INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic,
                                        partition_key, aggregate_type, event_type, dead_letter_id)
             SELECT event_id, account_id, event_id, 5, source_topic, account_id::text,
                    'transaction', 'transaction.created', id
               FROM dead_letters WHERE id = '{letter}'"
        ),
    ];
    for statement in statements {
        world.execute(&statement).await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replay_that_is_refused_comes_back_to_its_letter_and_another_arrives(pool: PgPool) {
    let world = World::new(pool);
    create_topics(&world, "600").await;
    let account = account_in(5);
    let payload = noise(550);
    let events = world.append(account, from_ref(&payload)).await;
    world.accept_all().await;
    let publisher = world.publisher(&[]);
    world.all_published().await;
    let (id, ..) = dead_letter(&world).await;

    replay(&world, id).await;
    world.all_published().await;
    assert_eq!(dead_letter(&world).await, (id, "DEAD".to_owned(), 1));
    assert_eq!(world.standing(events[0]).await, dead_lettered());
    assert_eq!(
        world.number("SELECT count(*) FROM processed_events").await,
        1
    );
    let mut log = Log::of(&world.dead_letters);
    log.read_to_the_end(&world.dead_letters).await;
    let mut told: Vec<_> = log
        .records
        .iter()
        .map(|record| {
            assert_eq!(last_header(record, "dlq.id"), Some(id.to_string()));
            last_header(record, "dlq.replay_count").unwrap()
        })
        .collect();
    told.dedup();
    assert_eq!(told, ["0", "1"]);

    raise_limits(&world).await;
    replay(&world, id).await;
    world.all_published().await;
    publisher.stop().await;
    assert_eq!(dead_letter(&world).await, (id, "REPLAYED".to_owned(), 1));
    let mut log = Log::of(&world.transactions);
    log.read_all(&events).await;
    let [sent] = &log.records[..] else {
        panic!("{:?}", log.records)
    };
    assert_eq!(sent.payload(), Some(payload.as_bytes()));
    assert_eq!(sent.key(), Some(account.to_string().as_bytes()));
    assert_eq!(last_header(sent, "dlq.id"), Some(id.to_string()));
}

/// The lost topic's event of a replayed letter, rebuilt from its transaction's row.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_rebuilt_event_that_is_refused_comes_back_to_the_letter_of_its_replay(pool: PgPool) {
    let world = World::new(pool);
    create_topics(&world, "4000").await;
    let events = world.append(account_in(5), &[noise(5_000)]).await;
    world.accept_all().await;
    let publisher = world.publisher(&[]);
    world.all_published().await;
    let (id, ..) = dead_letter(&world).await;
    world
        .execute("UPDATE dead_letters SET state = 'REPLAYED'")
        .await;
    world
        .execute("UPDATE transactions SET failure_reason = NULL")
        .await;
    world.execute("DELETE FROM processed_events").await;
    let rebuilt = "UPDATE outbox_events SET status = 'PENDING', published_at = NULL WHERE seq = 1";
    world.execute(rebuilt).await;
    world.all_published().await;
    publisher.stop().await;
    assert_eq!(dead_letter(&world).await, (id, "DEAD".to_owned(), 1));
    assert_eq!(world.standing(events[0]).await, dead_lettered());
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_publisher_that_ends_in_the_middle_of_a_refusal_makes_one_letter(pool: PgPool) {
    let world = World::new(pool);
    create_topics(&world, "4000").await;
    let account = account_in(5);
    let events = world.append(account, &[noise(5_000)]).await;
    let behind = world.append(account, &payloads(3)).await;
    world.accept_all().await;
    // Its last statement before the commit takes the refused row off, and waits here.
    world
        .execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock(77, 77); RETURN NEW; END'",
        )
        .await;
    world
        .execute(
            "CREATE TRIGGER wait BEFORE UPDATE ON outbox_events FOR EACH ROW
                    WHEN (NEW.last_error IS NOT NULL) EXECUTE FUNCTION wait()",
        )
        .await;
    let mut held = world.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(77, 77)")
        .execute(&mut *held)
        .await
        .unwrap();
    let publisher = world.publisher(&[]);
    eventually("the letter waits for the lock", || async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                        WHERE wait_event_type = 'Lock' AND datname = current_database()";
        world.number(waiting).await == 1
    })
    .await;
    publisher.kill().await;
    held.rollback().await.unwrap();
    eventually("its sessions are gone", || async {
        let open = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name LIKE 'publisher%'";
        world.number(open).await == 0
    })
    .await;
    assert_no_letter(&world).await;
    let publisher = world.publisher(&[]);
    world.all_published().await;
    publisher.kill().await;
    let publisher = world.publisher(&[]);
    publisher.ready().await;
    publisher.stop().await;
    assert_eq!(world.number(LETTERS).await, 1);
    assert_eq!(world.standing(events[0]).await, dead_lettered());
    let mut log = Log::of(&world.dead_letters);
    log.read_to_the_end(&world.dead_letters).await;
    assert_eq!(log.distinct().len(), 1);
    let mut log = Log::of(&world.transactions);
    log.read_all(&behind).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_the_database_refuses_stops_its_lane_only_and_heals(pool: PgPool) {
    let world = World::new(pool);
    create_topics(&world, "4000").await;
    world.append(account_in(5), &[noise(5_000)]).await;
    world.append(account_in(6), &payloads(3)).await;
    world.accept_all().await;
    world
        .execute("ALTER TABLE dead_letters ADD CONSTRAINT none CHECK (false)")
        .await;
    let publisher = world.publisher(&[]);
    publisher
        .unready("lanes", "it cannot be made a dead letter")
        .await;
    eventually("the other lane is published", || async {
        world.pending().await == 1
    })
    .await;
    world
        .execute("ALTER TABLE dead_letters DROP CONSTRAINT none")
        .await;
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
    assert_eq!(world.number(LETTERS).await, 1);
}

/// A limit that fits no event is a fault of the topic.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn refusals_of_many_accounts_in_a_row_stop_their_lanes_and_make_no_more_letters(
    pool: PgPool,
) {
    let world = World::new(pool);
    create_topics(&world, "4000").await;
    for lane in 0..30 {
        world.append(account_in(lane), &[noise(5_000)]).await;
    }
    world.accept_all().await;
    let publisher = world.publisher(&[]);
    publisher
        .unready("lanes", "none becomes a dead letter any more")
        .await;
    let ten_wait = || async { world.pending().await == 10 };
    eventually("twenty are given up", ten_wait).await;
    eventually("the others were tried again", || async {
        world
            .count("status = 'PENDING' AND publish_attempts >= 3")
            .await
            == 10
    })
    .await;
    assert_eq!(world.number(LETTERS).await, 20);
    raise_limits(&world).await;
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
    assert_eq!(world.number(LETTERS).await, 20);
    let mut log = Log::of(&world.transactions);
    log.read_to_the_end(&world.transactions).await;
    assert_eq!(log.distinct().len(), 10);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_topic_that_is_gone_makes_no_dead_letter(pool: PgPool) {
    let world = World::new(pool);
    world.create_topics(PARTITIONS, &[]).await;
    let account = account_in(5);
    let mut events = world.append(account, &payloads(3)).await;
    let publisher = world.publisher(&["--topics-create=false"]);
    world.all_published().await;
    delete_topic(&world.transactions).await;
    events.extend(world.append(account, &payloads(3)).await);
    world.accept_all().await;
    publisher.unready("topics", "no topic").await;
    assert_eq!(world.pending().await, 3);
    create_topic(&world.transactions, PARTITIONS, &[]).await;
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
    assert_no_letter(&world).await;
    let mut log = Log::of(&world.transactions);
    log.read_all(&events[3..]).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_with_an_unusable_type_or_topic_stops_its_lane_only(pool: PgPool) {
    let world = World::new(pool);
    let accounts = [account_in(1), account_in(2), account_in(3)];
    for account in accounts {
        world.append(account, &payloads(2)).await;
    }
    world.accept_all().await;
    let spoil = "UPDATE outbox_events SET event_type = 'transaction.lost' WHERE lane = 1";
    world.execute(spoil).await;
    let spoil = "UPDATE outbox_events SET topic = 'elsewhere' WHERE lane = 2";
    world.execute(spoil).await;
    let publisher = world.publisher(&[]);
    publisher
        .unready("lanes", "its type transaction.lost is unknown")
        .await;
    publisher
        .unready("lanes", "its topic elsewhere is neither")
        .await;
    eventually("the sound lane is published", || async {
        world.pending().await == 4
    })
    .await;
    assert_no_letter(&world).await;
    let mend = "UPDATE outbox_events SET event_type = 'transaction.created', topic = $1";
    sqlx::query(mend)
        .bind(&world.transactions)
        .execute(&world.pool)
        .await
        .unwrap();
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
    assert_no_letter(&world).await;
}
