//! What the worker's integration tests share: accepted transactions, events of them, and the state
//! they leave.

pub(crate) mod kafka;
pub(crate) mod parked;
pub(crate) mod poison;
pub(crate) mod proxy;
mod wait;

use std::{
    borrow::Borrow,
    sync::atomic::{AtomicI64, Ordering},
};

use chrono::Utc;
use common::{
    db::{DatabaseUrl, Isolation},
    settings::parse_from,
    types::{
        AccountId, AmountCents, EventEnvelope, EventType, FailureReason, SCHEMA_VERSION,
        TransactionCreated, TransactionId, TransactionType,
    },
};
use serde_json::Value;
use sqlx::PgPool;
pub(crate) use wait::{PATIENCE, eventually};
use worker::{
    config::{Config, KafkaSettings},
    event::{Event, Item, Place, Raw},
    failure::{Class, classify},
    ledger::Posting,
    slice::{self, ApplyError, Expected, Outcome},
};

pub(crate) const CREDIT: TransactionType = TransactionType::Credit;
pub(crate) const DEBIT: TransactionType = TransactionType::Debit;
pub(crate) const LEVELS: [Isolation; 2] = [Isolation::Serializable, Isolation::ReadCommitted];
pub(crate) const RESULTS: &str = "results-of-a-test";

/// The worker's settings for a test's own database.
pub(crate) fn config(pool: &PgPool, isolation: Isolation) -> Config {
    let mut config: Config = parse_from(&["worker"]).unwrap();
    config.database_url = DatabaseUrl::from((*pool.connect_options()).clone());
    config.slices.worker_isolation = isolation;
    RESULTS.clone_into(&mut config.kafka.results_topic);
    config
}

/// A pool of the worker's own sessions, on a test's own database.
pub(crate) fn worker_pool(pool: &PgPool, isolation: Isolation) -> PgPool {
    config(pool, isolation).pool()
}

pub(crate) async fn account(pool: &PgPool, balance_cents: i64) -> AccountId {
    account_of(pool, "EUR", balance_cents).await
}

/// An account that opened with a balance, as if it had come from one entry.
pub(crate) async fn account_of(pool: &PgPool, currency: &str, balance_cents: i64) -> AccountId {
    let id = AccountId::new();
    sqlx::query(
        "INSERT INTO accounts (id, currency, balance_cents, entry_count) VALUES ($1, $2, $3, $4)",
    )
    .bind(id)
    .bind(currency)
    .bind(balance_cents)
    .bind(i64::from(balance_cents > 0))
    .execute(pool)
    .await
    .unwrap();
    if balance_cents > 0 {
        sqlx::query("INSERT INTO ledger_entries VALUES ($1, 1, $2, $3, $3)")
            .bind(id)
            .bind(TransactionId::new())
            .bind(balance_cents)
            .execute(pool)
            .await
            .unwrap();
    }
    id
}

pub(crate) async fn suspend(pool: &PgPool, account: AccountId) {
    sqlx::query("UPDATE accounts SET status = 'SUSPENDED' WHERE id = $1")
        .bind(account)
        .execute(pool)
        .await
        .unwrap();
}

/// Accepts a transaction in euros, as the api does, and answers its event.
pub(crate) async fn accept(
    pool: &PgPool,
    account_id: AccountId,
    transaction_type: TransactionType,
    cents: i64,
) -> Event {
    let transaction = request(account_id, transaction_type, cents);
    insert(pool, &transaction).await;
    event(transaction)
}

/// Accepts so many credits of 1 with one statement.
pub(crate) async fn accept_many(pool: &PgPool, account: AccountId, events: usize) -> Vec<Event> {
    let transactions: Vec<_> = (0..events)
        .map(|_| request(account, TransactionType::Credit, 1))
        .collect();
    let ids: Vec<_> = transactions
        .iter()
        .map(|transaction| transaction.transaction_id.0)
        .collect();
    sqlx::query(
        "INSERT INTO transactions (id, account_id, amount_cents, currency, type, idempotency_key)
         SELECT id, $2, 1, 'EUR', 'CREDIT', id::text FROM unnest($1::uuid[]) AS request (id)",
    )
    .bind(ids)
    .bind(account)
    .execute(pool)
    .await
    .unwrap();
    transactions.into_iter().map(event).collect()
}

fn request(
    account_id: AccountId,
    transaction_type: TransactionType,
    cents: i64,
) -> TransactionCreated {
    TransactionCreated {
        schema_version: SCHEMA_VERSION,
        transaction_id: TransactionId::new(),
        account_id,
        amount_cents: AmountCents::try_from(cents).unwrap(),
        currency: "EUR".parse().unwrap(),
        transaction_type,
    }
}

async fn insert(pool: &PgPool, transaction: &TransactionCreated) {
    sqlx::query(
        "INSERT INTO transactions (id, account_id, amount_cents, currency, type, idempotency_key)
         VALUES ($1, $2, $3, $4, $5, $1::text)",
    )
    .bind(transaction.transaction_id)
    .bind(transaction.account_id)
    .bind(transaction.amount_cents)
    .bind(transaction.currency.as_str())
    .bind(transaction.transaction_type.as_str())
    .execute(pool)
    .await
    .unwrap();
}

/// An event as it comes from the topic, each at an offset of its own.
pub(crate) fn event(transaction: TransactionCreated) -> Event {
    static OFFSET: AtomicI64 = AtomicI64::new(0);
    let place = Place {
        partition: 0,
        offset: OFFSET.fetch_add(1, Ordering::Relaxed),
        epoch: 0,
    };
    let envelope = EventEnvelope {
        id: transaction.transaction_id.into(),
        event_type: EventType::TransactionCreated,
        time: Utc::now(),
        account_id: transaction.account_id,
    };
    let headers = envelope.headers();
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, Some(value.as_bytes())));
    let key = transaction.account_id.to_string();
    let value = serde_json::to_vec(&transaction).unwrap();
    let recorded_at = Utc::now().timestamp_millis();
    let raw = Raw::new(
        Some(key.as_bytes()),
        Some(&value),
        &headers,
        Some(recorded_at),
    );
    Event {
        place,
        transaction,
        raw,
    }
}

/// What somebody makes of an event who can write to the topic.
pub(crate) fn forge(event: &Event, change: impl FnOnce(&mut TransactionCreated)) -> Event {
    let mut transaction = event.transaction;
    change(&mut transaction);
    self::event(transaction)
}

pub(crate) fn items(events: &[impl Borrow<Event>]) -> Vec<Item> {
    let events = events.iter().map(|event| event.borrow().clone());
    events.map(Item::Event).collect()
}

/// The topics that slices without a broker know of.
pub(crate) fn topics() -> KafkaSettings {
    let mut config: Config = parse_from(&["worker"]).unwrap();
    RESULTS.clone_into(&mut config.kafka.results_topic);
    config.kafka
}

pub(crate) async fn apply(
    pool: &PgPool,
    events: &[impl Borrow<Event>],
) -> Result<Vec<Outcome>, ApplyError> {
    apply_expecting(pool, events, Expected::New).await
}

pub(crate) async fn apply_expecting(
    pool: &PgPool,
    events: &[impl Borrow<Event>],
    expected: Expected,
) -> Result<Vec<Outcome>, ApplyError> {
    slice::apply(pool, PATIENCE, &topics(), &items(events), expected).await
}

/// Applies, again and again where two transactions collide.
pub(crate) async fn apply_through(pool: &PgPool, events: &[impl Borrow<Event>]) -> Vec<Outcome> {
    loop {
        match apply(pool, events).await {
            Ok(outcomes) => return outcomes,
            Err(error) => assert_eq!(classify(&error), Class::Collision, "{error}"),
        }
    }
}

pub(crate) fn postings(outcomes: &[Outcome]) -> Vec<Option<Posting>> {
    outcomes.iter().map(Outcome::posting).collect()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "stands beside the `None` of a repeat"
)]
pub(crate) fn rejected(reason: FailureReason) -> Option<Posting> {
    Some(Posting::Rejected(reason))
}

/// Everything that posting may change, to be compared before and after.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) accounts: Value,
    pub(crate) transactions: Value,
    pub(crate) entries: Value,
    pub(crate) results: Value,
    pub(crate) closed_events: i64,
    pub(crate) parked: Value,
    pub(crate) letters: Value,
}

pub(crate) async fn state(pool: &PgPool) -> State {
    State {
        accounts: rows(pool, "accounts", "id").await,
        transactions: rows(pool, "transactions", "id").await,
        entries: rows(pool, "ledger_entries", "account_id, entry_no").await,
        results: rows(pool, "outbox_events", "seq").await,
        closed_events: count(pool, "SELECT count(*) FROM processed_events").await,
        parked: rows(pool, "parked_events", "account_id, position").await,
        letters: rows(pool, "dead_letters", "id").await,
    }
}

async fn rows(pool: &PgPool, table: &str, order: &str) -> Value {
    let sql = format!("SELECT coalesce(json_agg(t ORDER BY {order}), '[]') FROM {table} t");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_one(pool)
        .await
        .unwrap()
}

pub(crate) async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// The balance of an account, and how many entries it says it has.
pub(crate) async fn balance(pool: &PgPool, account: AccountId) -> (i64, i64) {
    sqlx::query_as("SELECT balance_cents, entry_count FROM accounts WHERE id = $1")
        .bind(account)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// What several accounts hold together.
pub(crate) async fn balances(pool: &PgPool, accounts: &[AccountId]) -> i64 {
    let mut sum = 0;
    for account in accounts {
        sum += balance(pool, *account).await.0;
    }
    sum
}

/// A transaction's status and failure reason.
pub(crate) async fn status(pool: &PgPool, event: &Event) -> (String, Option<String>) {
    sqlx::query_as("SELECT status, failure_reason FROM transactions WHERE id = $1")
        .bind(event.transaction.transaction_id)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// The result events written so far: type and payload, in order.
pub(crate) async fn results(pool: &PgPool) -> Vec<(String, Value)> {
    sqlx::query_as("SELECT event_type, payload FROM outbox_events WHERE topic = $1 ORDER BY seq")
        .bind(RESULTS)
        .fetch_all(pool)
        .await
        .unwrap()
}

/// The ledger's own laws: numbers without gaps, running balances that add up, balances that are the
/// sum of their entries, and one entry and one result event for each transaction that has ended.
pub(crate) async fn assert_books_balance(pool: &PgPool) {
    let broken = count(
        pool,
        "SELECT count(*) FROM (
             SELECT entry_no <> row_number() OVER account AS gap,
                    balance_after_cents <> sum(amount_cents) OVER account AS drift
               FROM ledger_entries
             WINDOW account AS (PARTITION BY account_id ORDER BY entry_no)) AS entry
          WHERE gap OR drift",
    );
    assert_eq!(
        broken.await,
        0,
        "gaps in numbers or running balances that do not add up"
    );
    let unlike = count(
        pool,
        "SELECT count(*) FROM accounts
           CROSS JOIN LATERAL (SELECT coalesce(sum(amount_cents), 0) AS cents, count(*) AS number
                                 FROM ledger_entries WHERE account_id = accounts.id) AS entries
          WHERE balance_cents <> entries.cents OR entry_count <> entries.number",
    );
    assert_eq!(
        unlike.await,
        0,
        "balances that are not the sum of their entries"
    );
    let unentered = count(
        pool,
        "SELECT count(*) FROM transactions
          WHERE (status = 'PROCESSED') <> EXISTS (SELECT FROM ledger_entries
                                                   WHERE transaction_id = transactions.id)",
    );
    assert_eq!(
        unentered.await,
        0,
        "entries and final states that do not agree"
    );
    let untold = count(
        pool,
        "SELECT count(*) FROM transactions
          WHERE (status IN ('PROCESSED', 'FAILED'))::int <>
                (SELECT count(*) FROM outbox_events
                  WHERE aggregate_id = transactions.id AND dead_letter_id IS NULL)",
    );
    assert_eq!(untold.await, 0, "results that were not told once");
}

/// Transactions of several accounts, one after another: credits, debits, and debits too large.
pub(crate) async fn mixed(pool: &PgPool, accounts: usize, transactions: i64) -> Vec<Event> {
    let mut ids = Vec::new();
    for _ in 0..accounts {
        ids.push(account(pool, 0).await);
    }
    let mut events = Vec::new();
    for (number, account) in (0..transactions).zip(ids.iter().cycle()) {
        let event = match number % 5 {
            0 | 3 => accept(pool, *account, CREDIT, 100 + number).await,
            1 => accept(pool, *account, DEBIT, 40).await,
            2 => accept(pool, *account, DEBIT, 1_000_000).await,
            _ => accept(pool, *account, DEBIT, number).await,
        };
        events.push(event);
    }
    events
}

pub(crate) async fn apply_in_slices(pool: &PgPool, events: &[Event], slice: usize) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for events in events.chunks(slice) {
        outcomes.extend(apply_through(pool, events).await);
    }
    outcomes
}
