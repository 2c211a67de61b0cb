//! What the books say at the end of a round, against what the clients were told.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use common::types::RecordHeaders;
use sqlx::{Row, postgres::PgRow};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{fleet::Fleet, forge::MARK, poison::is_poison};
use crate::{
    audit::{OPEN_TRANSACTIONS, Snapshot},
    kafka::Record,
};

/// How long everything may take to come to its end without any progress.
const STANDSTILL_MAX: Duration = Duration::from_mins(1);
/// The classes of what nobody of ours has written.
const NEVER_POSSIBLE: [&str; 3] = ["undecodable", "unknown_schema_version", "mismatch"];
/// What is still under way, by what.
const UNDER_WAY: [(&str, &str); 3] = [
    ("open transactions", OPEN_TRANSACTIONS),
    ("parked events", "SELECT count(*) FROM parked_events"),
    (
        "events to be sent",
        "SELECT count(*) FROM outbox_events WHERE status = 'PENDING'",
    ),
];

/// How a round's transactions ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) processed: usize,
    pub(super) failed: usize,
    pub(super) dead_lettered: usize,
}

/// Waits until nothing is under way any more.
///
/// # Errors
/// What still is, if it does not become less for a minute.
pub(super) async fn settled(fleet: &Fleet) -> Result<(), String> {
    let (mut least, mut since) = (i64::MAX, Instant::now());
    loop {
        let mut now = [0; 3];
        for (count, (_, sql)) in now.iter_mut().zip(UNDER_WAY) {
            *count = fleet.stack.database.count(sql).await;
        }
        if now == [0; 3] {
            return Ok(());
        }
        let sum = now.iter().sum();
        if sum < least {
            (least, since) = (sum, Instant::now());
        }
        if since.elapsed() > STANDSTILL_MAX {
            let names = UNDER_WAY.map(|(name, _)| name);
            return Err(format!("never ended: {names:?} are {now:?}"));
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// Holds the books to the promises.
pub(super) async fn judge(fleet: &Fleet) -> Ends {
    let snapshot = Snapshot::of(&fleet.stack).await;
    for wrong in snapshot.wrongs(&fleet.stack.book.entries()) {
        fleet.wrong(wrong);
    }
    let records = read(fleet, fleet.stack.transactions_topic.clone()).await;
    let letters = letters(fleet).await;
    poisonous_alone_are_dead(fleet, &snapshot);
    nobody_was_suspended(fleet, &snapshot);
    forged_ones_are_dead(fleet, &records, &letters);
    letters_are_on_the_topic(fleet, &letters).await;
    events_are_the_transactions(fleet, &snapshot, &records).await;
    accounts_for_every_transaction(fleet, &snapshot)
}

/// Every transaction's event is on the topic, and of ours no other; it is closed exactly if its
/// transaction has ended or waits for somebody.
async fn events_are_the_transactions(fleet: &Fleet, snapshot: &Snapshot, records: &[Record]) {
    let ours = records
        .iter()
        .filter(|record| record.header(MARK).is_empty());
    let sent: HashSet<Uuid> = ours
        .filter_map(|record| record.header("ce_id").parse().ok())
        .collect();
    let transactions: HashSet<Uuid> = snapshot.transactions.iter().map(|row| row.id).collect();
    for id in sent.symmetric_difference(&transactions) {
        fleet.wrong(format!(
            "an event without a transaction, or without an event: {id}"
        ));
    }
    let closed = sqlx::query("SELECT event_id FROM processed_events")
        .fetch_all(fleet.stack.database.superuser())
        .await;
    let closed: HashSet<Uuid> = closed
        .unwrap_or_default()
        .iter()
        .map(|row| row.get(0))
        .collect();
    for id in closed.symmetric_difference(&transactions) {
        fleet.wrong(format!(
            "a closed event without a transaction, or not closed: {id}"
        ));
    }
}

/// Every transaction is posted, rejected or waits for somebody: none is anything else.
fn accounts_for_every_transaction(fleet: &Fleet, snapshot: &Snapshot) -> Ends {
    let count = |status: &str| {
        let rows = snapshot.transactions.iter();
        rows.filter(|row| row.status == status).count()
    };
    let ends = Ends {
        processed: count("PROCESSED"),
        failed: count("FAILED"),
        dead_lettered: count("PROCESSING"),
    };
    let all = snapshot.transactions.len();
    if ends.processed + ends.failed + ends.dead_lettered != all {
        fleet.wrong(format!("{all} transactions, and {ends:?}"));
    }
    ends
}

/// No event is given up that could be applied, and nothing for another reason than ours.
fn poisonous_alone_are_dead(fleet: &Fleet, snapshot: &Snapshot) {
    for letter in &snapshot.dead_letters {
        let expected = match letter.error_class.as_str() {
            "retries_exhausted" => letter.transaction_id.is_some_and(is_poison),
            class => NEVER_POSSIBLE.contains(&class) && letter.transaction_id.is_none(),
        };
        if !expected {
            fleet.wrong(format!(
                "given up, and nothing was wrong with it: {letter:?}"
            ));
        }
    }
}

/// No round suspends an account, so none is refused for that.
fn nobody_was_suspended(fleet: &Fleet, snapshot: &Snapshot) {
    for row in &snapshot.transactions {
        if row.failure_reason.as_deref() == Some("account_suspended") {
            fleet.wrong(format!("nobody suspended its account: {row:?}"));
        }
    }
}

/// Each record that somebody else wrote has one dead letter, and nothing else has one of its classes.
fn forged_ones_are_dead(fleet: &Fleet, records: &[Record], letters: &[Letter]) {
    let marks = records.iter().map(|record| record.header(MARK));
    let forged: HashSet<&str> = marks.filter(|mark| !mark.is_empty()).collect();
    let never_possible = |letter: &&Letter| NEVER_POSSIBLE.contains(&letter.class.as_str());
    let mut dead: HashSet<&str> = HashSet::new();
    for letter in letters.iter().filter(never_possible) {
        let mark = letter.header(MARK);
        if !forged.contains(mark) || !dead.insert(mark) {
            fleet.wrong(format!(
                "a letter of no forged record, or a second one: {letter:?}"
            ));
        }
    }
    for mark in forged.difference(&dead) {
        fleet.wrong(format!("a forged record without a dead letter: {mark}"));
    }
}

/// The last death of each letter is on the dead letter topic, with key, value and headers as they were, and
/// so is every one before it, under its own count or, if it left late, a later one.
async fn letters_are_on_the_topic(fleet: &Fleet, letters: &[Letter]) {
    let records = read(fleet, fleet.stack.dead_letters_topic.clone()).await;
    let mut told: HashMap<&str, Vec<&Record>> = HashMap::new();
    for record in &records {
        told.entry(last(record, "dlq.id")).or_default().push(record);
    }
    for letter in letters {
        let records = told
            .remove(letter.id.to_string().as_str())
            .unwrap_or_default();
        for record in &records {
            if !letter.is(record) {
                fleet.wrong(format!("not as it was: {letter:?} {record:?}"));
            }
        }
        let is_last =
            |record: &&Record| last(record, "dlq.replay_count") == letter.replay_count.to_string();
        let deaths = usize::try_from(letter.replay_count).unwrap_or(0) + 1;
        if records.len() < deaths || !records.iter().any(is_last) {
            fleet.wrong(format!(
                "{} records of {deaths} deaths: {letter:?}",
                records.len()
            ));
        }
    }
    for id in told.keys() {
        fleet.wrong(format!("on the topic, and no dead letter: {id}"));
    }
}

/// A header's last value: what we append stands behind the record's own.
fn last<'r>(record: &'r Record, name: &str) -> &'r str {
    let mut headers = record.headers.iter().rev();
    let found = headers.find(|(header, _)| header == name);
    found.map_or("", |(_, value)| value)
}

/// A dead letter with its record.
#[derive(Debug)]
struct Letter {
    id: Uuid,
    class: String,
    replay_count: i32,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: RecordHeaders,
}

impl Letter {
    fn of(row: &PgRow) -> Self {
        let headers: String = row.get("headers");
        Self {
            id: row.get("id"),
            class: row.get("error_class"),
            replay_count: row.get("replay_count"),
            key: row.get("key"),
            value: row.get("value"),
            headers: serde_json::from_str(&headers).unwrap_or_default(),
        }
    }

    fn header(&self, name: &str) -> &str {
        let found = self.headers.0.iter().find(|(header, _)| header == name);
        let bytes = found.and_then(|(_, value)| value.bytes());
        bytes
            .and_then(|bytes| str::from_utf8(bytes).ok())
            .unwrap_or("")
    }

    /// Whether a record of the topic is this one's, untouched, with what is appended behind it.
    fn is(&self, record: &Record) -> bool {
        let own = self.headers.0.iter().map(|(name, value)| {
            let bytes = value.bytes().unwrap_or_default();
            (name.clone(), String::from_utf8_lossy(bytes).into_owned())
        });
        let own: Vec<_> = own.collect();
        record.value == self.value
            && record.key.as_bytes() == self.key
            && record.headers.starts_with(&own)
    }
}

async fn letters(fleet: &Fleet) -> Vec<Letter> {
    let rows = sqlx::query(
        "SELECT id, error_class, replay_count, coalesce(key, '') AS key, coalesce(value, '') AS value,
                headers::text AS headers FROM dead_letters",
    )
    .fetch_all(fleet.stack.database.superuser())
    .await;
    rows.unwrap_or_default().iter().map(Letter::of).collect()
}

async fn read(fleet: &Fleet, topic: String) -> Vec<Record> {
    let kafka = fleet.stack.kafka.clone();
    let records = spawn_blocking(move || {
        if kafka.partitions(&topic) == 0 {
            Vec::new()
        } else {
            kafka.read(&topic)
        }
    });
    records.await.unwrap_or_default()
}
