//! Queues of parked events, as slices make them, and a retry loop whose steps the test takes.

use std::{borrow::Borrow, time::Duration};

use common::{
    admin::Readiness,
    db::Isolation,
    outbox::WakeUp,
    types::{AccountId, TransactionCreated},
};
use sqlx::PgPool;
use tokio_util::sync::{CancellationToken, DropGuard};
use worker::{
    config::Config,
    event::Event,
    failure::Failures,
    health::Health,
    retry::{Retries, Step},
};

use super::{PATIENCE, config, count};

pub(crate) const DEAD_LETTERS: &str = "dead-letters-of-a-test";

/// Settings of a retry loop that needs no patience.
pub(crate) fn retry_config(pool: &PgPool, isolation: Isolation) -> Config {
    let mut config = config(pool, isolation);
    DEAD_LETTERS.clone_into(&mut config.kafka.dead_letters_topic);
    config.failures.retry_pause_first_ms = 1;
    config.failures.retry_pause_max_ms = 2;
    config
}

/// A retry loop, with what it tells the world.
pub(crate) struct Retrier {
    pub(crate) retries: Retries,
    pub(crate) failures: Failures,
    pub(crate) readiness: Readiness,
    /// Ends the hints with the test.
    pub(crate) _stop: DropGuard,
}

impl Retrier {
    pub(crate) fn new(config: &Config) -> Self {
        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        let max = config.failures.systemic_failures_max;
        let failures = Failures::new(readiness.component("ledger"), max);
        let database = Health::new(readiness.component("database"));
        database.needed_side().set_ready();
        let wake_up = WakeUp::start(config.session(), stop.clone());
        let side = database.quiet_side();
        let retries = Retries::new(config, wake_up, side, failures.of_another_loop());
        Self {
            retries,
            failures,
            readiness,
            _stop: stop.drop_guard(),
        }
    }

    /// Steps until a step is as wanted, and answers it; the due times are waited for.
    pub(crate) async fn until(&mut self, wanted: impl Fn(Step) -> bool) -> Step {
        let stepping = async {
            loop {
                let step = self.retries.step().await;
                if wanted(step) {
                    return step;
                }
                if let Step::Idle(next_due) = step {
                    let next_due = next_due.expect("nothing is parked, and the step did not come");
                    tokio::time::sleep(next_due).await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, stepping)
            .await
            .expect("the step comes")
    }

    /// Steps until nothing is parked; answers the steps that did something.
    pub(crate) async fn drain(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let stepping = async {
            loop {
                match self.retries.step().await {
                    Step::Idle(None) => return,
                    Step::Idle(Some(next_due)) => tokio::time::sleep(next_due).await,
                    Step::Busy | Step::Collided => tokio::task::yield_now().await,
                    step => steps.push(step),
                }
            }
        };
        tokio::time::timeout(PATIENCE, stepping)
            .await
            .expect("the queues are drained");
        steps
    }
}

/// Parks events at the end of their accounts' queues, as a slice does: the first of a queue has failed
/// once, and is due after the pause.
pub(crate) async fn park(pool: &PgPool, events: &[impl Borrow<Event>], pause: Duration) {
    for event in events {
        let event = event.borrow();
        park_record(pool, &event.transaction, &Record::of(event), pause).await;
    }
}

/// What is kept of a record.
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: &'static str,
    pub(crate) offset: i64,
}

impl Record {
    pub(crate) fn of(event: &Event) -> Self {
        Self {
            key: Some(event.transaction.account_id.to_string().into_bytes()),
            value: Some(serde_json::to_vec(&event.transaction).unwrap()),
            headers: r#"[["ce_id","x"]]"#,
            offset: event.place.offset,
        }
    }
}

pub(crate) async fn park_record(
    pool: &PgPool,
    claim: &TransactionCreated,
    record: &Record,
    pause: Duration,
) {
    let mut transaction = pool.begin().await.unwrap();
    let queued: i32 =
        sqlx::query_scalar("SELECT parked_count FROM accounts WHERE id = $1 FOR UPDATE")
            .bind(claim.account_id)
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
    let is_head = queued == 0;
    sqlx::query(
        "INSERT INTO parked_events (account_id, event_id, source_topic, source_partition,
                source_offset, recorded_at, key, value, headers, attempts, next_attempt_at,
                first_failed_at, last_error)
         VALUES ($1, $2, 'transactions', 3, $3, '2026-11-21T10:00:00Z', $4, $5, $6::json,
                 $7::int, CASE WHEN $8 THEN now() + make_interval(secs => $9) END,
                 CASE WHEN $8 THEN now() END, CASE WHEN $8 THEN 'boom' END)",
    )
    .bind(claim.account_id)
    .bind(claim.transaction_id)
    .bind(record.offset)
    .bind(&record.key)
    .bind(&record.value)
    .bind(record.headers)
    .bind(i32::from(is_head))
    .bind(is_head)
    .bind(pause.as_secs_f64())
    .execute(&mut *transaction)
    .await
    .unwrap();
    for sql in [
        "UPDATE accounts SET parked_count = parked_count + 1 WHERE id = $1",
        "UPDATE transactions SET status = 'PROCESSING' WHERE id = $2 AND account_id = $1",
    ] {
        let query = sqlx::query(sql).bind(claim.account_id);
        let query = if sql.contains("$2") {
            query.bind(claim.transaction_id)
        } else {
            query
        };
        query.execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// Lets the posting of some transactions fail in itself: those whose amount is this.
pub(crate) async fn poison(pool: &PgPool, cents: i64) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF abs(NEW.amount_cents) = {cents} THEN
                 RAISE EXCEPTION 'poison for account %', NEW.account_id;
             END IF;
             RETURN NEW;
         END $$;
         CREATE OR REPLACE TRIGGER poison BEFORE INSERT ON ledger_entries
            FOR EACH ROW EXECUTE FUNCTION poison()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(pool)
        .await
        .unwrap();
}

pub(crate) async fn heal(pool: &PgPool) {
    sqlx::raw_sql("DROP TRIGGER poison ON ledger_entries")
        .execute(pool)
        .await
        .unwrap();
}

/// The laws of the queues: each account knows how long its own is, and the first event of each has a due
/// time, and no other.
pub(crate) async fn assert_queues_are_whole(pool: &PgPool) {
    let miscounted = count(
        pool,
        "SELECT count(*) FROM accounts
          WHERE parked_count <> (SELECT count(*) FROM parked_events WHERE account_id = accounts.id)",
    );
    assert_eq!(miscounted.await, 0, "accounts that miscount their queues");
    let headless = count(
        pool,
        "SELECT count(*) FROM (
             SELECT FROM parked_events GROUP BY account_id
             HAVING count(next_attempt_at) <> 1
                 OR min(position) <> min(position) FILTER (WHERE next_attempt_at IS NOT NULL)) AS q",
    );
    assert_eq!(headless.await, 0, "queues without their one head");
}

/// The account's transactions in the order of its entries.
pub(crate) async fn entries(
    pool: &PgPool,
    account: AccountId,
) -> Vec<common::types::TransactionId> {
    sqlx::query_scalar(
        "SELECT transaction_id FROM ledger_entries WHERE account_id = $1 ORDER BY entry_no",
    )
    .bind(account)
    .fetch_all(pool)
    .await
    .unwrap()
}

pub(crate) async fn parked(pool: &PgPool) -> i64 {
    count(pool, "SELECT count(*) FROM parked_events").await
}

/// How often the heads have failed.
pub(crate) async fn attempts(pool: &PgPool) -> Vec<i32> {
    sqlx::query_scalar(
        "SELECT attempts FROM parked_events WHERE next_attempt_at IS NOT NULL ORDER BY position",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Parks so many credits of 1 in all, in turn for so many new accounts, as slices would have done.
pub(crate) async fn park_many(pool: &PgPool, events: i64, accounts: i64) {
    let sql = format!(
        "INSERT INTO accounts (id, currency, parked_count)
         SELECT md5('account ' || n)::uuid, 'EUR', {events} / {accounts}
           FROM generate_series(1, {accounts}) AS n;
         -- Ids in the order of time, as UUIDs of version 7 are.
         DROP TABLE IF EXISTS chosen;
         CREATE TEMPORARY TABLE chosen AS
         SELECT (lpad(to_hex(1790000000000 + n), 12, '0') || '7' || substr(md5('event ' || n), 1, 3)
                 || '8' || substr(md5('event ' || n), 4, 15))::uuid AS id,
                md5('account ' || (n % {accounts} + 1))::uuid AS account_id, n
           FROM generate_series(1, {events}) AS n;
         INSERT INTO transactions (id, account_id, amount_cents, currency, type, status,
                                   idempotency_key)
         SELECT id, account_id, 1, 'EUR', 'CREDIT', 'PROCESSING', n::text FROM chosen ORDER BY n;
         INSERT INTO parked_events (account_id, event_id, source_topic, source_partition,
                source_offset, key, value, headers, attempts, next_attempt_at, first_failed_at)
         SELECT account_id, id, 'transactions', 0, n, account_id::text::bytea,
                convert_to(repeat('x', 220), 'UTF8'), '[[\"ce_id\",\"some forty characters or so of it\"]]',
                (n <= {accounts})::int, CASE WHEN n <= {accounts} THEN now() END,
                CASE WHEN n <= {accounts} THEN now() END
           FROM chosen ORDER BY n;
         ANALYZE parked_events, accounts, transactions"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(pool)
        .await
        .unwrap();
}
