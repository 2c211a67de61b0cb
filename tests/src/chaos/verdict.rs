//! What the books say at the end of a round, against what the clients were told.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use sqlx::Row;
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
    let (mut last, mut since) = ([i64::MAX; 3], Instant::now());
    loop {
        let mut now = [0; 3];
        for (count, (_, sql)) in now.iter_mut().zip(UNDER_WAY) {
            *count = fleet.stack.database.count(sql).await;
        }
        if now == [0; 3] {
            return Ok(());
        }
        if now != last {
            (last, since) = (now, Instant::now());
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
    poisonous_alone_are_dead(fleet, &snapshot);
    forged_ones_are_dead(fleet, &snapshot).await;
    letters_are_on_the_topic(fleet, &snapshot).await;
    accounts_for_every_transaction(fleet, &snapshot)
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

/// No event is given up that could be applied.
fn poisonous_alone_are_dead(fleet: &Fleet, snapshot: &Snapshot) {
    for letter in &snapshot.dead_letters {
        let healthy = letter.transaction_id.is_some_and(|id| !is_poison(id));
        if letter.error_class == "retries_exhausted" && healthy {
            fleet.wrong(format!(
                "given up, and nothing was wrong with it: {letter:?}"
            ));
        }
    }
}

/// Each record that somebody else wrote has one dead letter, and nothing else has one of its class.
async fn forged_ones_are_dead(fleet: &Fleet, snapshot: &Snapshot) {
    let records = read(fleet, fleet.stack.transactions_topic.clone()).await;
    let forged: HashSet<_> = records
        .iter()
        .map(|record| record.header(MARK))
        .filter(|mark| !mark.is_empty())
        .collect();
    let never_possible = ["undecodable", "unknown_schema_version", "mismatch"];
    let letters = snapshot.dead_letters.iter();
    let dead = letters.filter(|letter| never_possible.contains(&letter.error_class.as_str()));
    let dead = dead.count();
    if dead != forged.len() {
        fleet.wrong(format!(
            "{} forged records, {dead} dead letters of them",
            forged.len()
        ));
    }
}

/// Each death of a letter is on the dead letter topic, with key, value and headers as they were.
async fn letters_are_on_the_topic(fleet: &Fleet, snapshot: &Snapshot) {
    let records = read(fleet, fleet.stack.dead_letters_topic.clone()).await;
    let mut told: HashMap<(String, String), &Record> = HashMap::new();
    for record in &records {
        let (id, count) = (record.header("dlq.id"), record.header("dlq.replay_count"));
        told.insert((id.to_owned(), count.to_owned()), record);
    }
    let values = values(fleet).await;
    for letter in &snapshot.dead_letters {
        for death in 0..=letter.replay_count {
            match told.remove(&(letter.id.to_string(), death.to_string())) {
                Some(record) if values.get(&letter.id) == Some(&record.value) => {}
                Some(record) => fleet.wrong(format!("another value: {letter:?} {record:?}")),
                None => fleet.wrong(format!("death {death} is not on the topic: {letter:?}")),
            }
        }
    }
    for (id, _) in told.keys() {
        fleet.wrong(format!("on the topic, and no dead letter: {id}"));
    }
}

async fn values(fleet: &Fleet) -> HashMap<Uuid, Vec<u8>> {
    let rows = sqlx::query("SELECT id, coalesce(value, '') AS value FROM dead_letters")
        .fetch_all(fleet.stack.database.superuser())
        .await;
    let rows = rows.unwrap_or_default();
    rows.iter()
        .map(|row| (row.get("id"), row.get("value")))
        .collect()
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
