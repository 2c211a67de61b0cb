//! Dead letters as the worker and the publisher write them, under the worker's role.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::harness::{Answer, Api};

/// A dead letter to write.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) id: Uuid,
    pub(crate) account_id: Uuid,
    pub(crate) event_id: Option<Uuid>,
    pub(crate) transaction_id: Option<Uuid>,
    pub(crate) class: &'static str,
    pub(crate) stage: &'static str,
    pub(crate) source_topic: &'static str,
    /// None where the broker never took it.
    pub(crate) source_offset: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Value,
    pub(crate) dead_at: DateTime<Utc>,
}

impl Letter {
    /// Of a genuine event that failed at each attempt.
    pub(crate) fn exhausted(transaction: &Value) -> Self {
        let id = uuid_of(&transaction["id"]);
        let account_id = uuid_of(&transaction["account_id"]);
        Self {
            event_id: Some(id),
            transaction_id: Some(id),
            class: "retries_exhausted",
            stage: "apply",
            key: Some(account_id.to_string().into_bytes()),
            value: Some(b"{\"schema_version\":1}".to_vec()),
            headers: json!([["ce_id", id]]),
            ..Self::unreadable()
        }
        .of_account(account_id)
    }

    /// Of bytes that are no event.
    pub(crate) fn unreadable() -> Self {
        Self {
            id: Uuid::now_v7(),
            account_id: Uuid::nil(),
            event_id: None,
            transaction_id: None,
            class: "undecodable",
            stage: "decode",
            source_topic: "transactions",
            source_offset: Some(rand_offset()),
            key: None,
            value: Some(vec![0xff, 0x00]),
            headers: json!([]),
            dead_at: Utc::now(),
        }
    }

    pub(crate) fn of_account(self, account_id: Uuid) -> Self {
        Self { account_id, ..self }
    }

    /// Writes the row alone.
    pub(crate) async fn insert(&self, transaction: &mut Transaction<'_, Postgres>) {
        sqlx::query(
            "INSERT INTO dead_letters (id, account_id, event_id, transaction_id, source_topic, source_partition,
                    source_offset, recorded_at, first_failed_at, dead_at, attempts, error_class, error_stage,
                    error_message, key, value, headers, value_sha256)
             VALUES ($1, $2, $3, $4, $5, CASE WHEN $6::bigint IS NOT NULL THEN 3 END, $6, now(), now(), $7, 6, $8, $9,
                     'P0001: no', $10, $11, $12, sha256(coalesce($11, '')))",
        )
        .bind(self.id)
        .bind(self.account_id)
        .bind(self.event_id)
        .bind(self.transaction_id)
        .bind(self.source_topic)
        .bind(self.source_offset)
        .bind(self.dead_at)
        .bind(self.class)
        .bind(self.stage)
        .bind(&self.key)
        .bind(&self.value)
        .bind(&self.headers)
        .execute(&mut **transaction)
        .await
        .unwrap();
    }

    /// Writes it as the worker does: with its transaction's state and its closed event, where it is the
    /// transaction's own.
    pub(crate) async fn die(self, pool: &PgPool) -> Self {
        let mut transaction = as_worker(pool, "READ COMMITTED").await;
        self.insert(&mut transaction).await;
        if let Some(id) = self.transaction_id {
            let closed = "INSERT INTO processed_events (event_id, account_id, transaction_id) VALUES ($1, $2, $1)";
            let waits = "UPDATE transactions SET status = 'PROCESSING', failure_reason = 'dead_lettered' WHERE id = $1 AND account_id = $2";
            for statement in [closed, waits] {
                let query = sqlx::query(statement).bind(id).bind(self.account_id);
                query.execute(&mut *transaction).await.unwrap();
            }
        }
        transaction.commit().await.unwrap();
        self
    }

    /// Dies again behind a replay, as the worker has it.
    pub(crate) async fn die_again(&self, pool: &PgPool) {
        let mut transaction = as_worker(pool, "READ COMMITTED").await;
        let again = "UPDATE dead_letters SET state = 'DEAD', replay_count = replay_count + 1, dead_at = now() WHERE id = $1 AND state = 'REPLAYED'";
        let done = sqlx::query(again).bind(self.id);
        let done = done.execute(&mut *transaction).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
        let waits = "UPDATE transactions SET failure_reason = 'dead_lettered' WHERE id = $1 AND status = 'PROCESSING'";
        let waits = sqlx::query(waits).bind(self.transaction_id);
        waits.execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }

    pub(crate) fn path(&self) -> String {
        format!("/v1/dead-letters/{}", self.id)
    }
}

/// A database transaction of a worker.
pub(crate) async fn as_worker(pool: &PgPool, isolation: &str) -> Transaction<'static, Postgres> {
    let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SET LOCAL ROLE postonce_worker");
    pool.begin_with(sqlx::AssertSqlSafe(begin)).await.unwrap()
}

pub(crate) fn uuid_of(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}

/// Somewhere on the topic where no other letter's record stood.
fn rand_offset() -> i64 {
    static NEXT: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// An outbox row that carries a letter.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Sent {
    pub(crate) event_id: Uuid,
    pub(crate) account_id: Uuid,
    pub(crate) aggregate_id: Uuid,
    pub(crate) lane: i16,
    pub(crate) topic: String,
    pub(crate) partition_key: String,
    pub(crate) event_type: String,
    pub(crate) payload: Option<String>,
    pub(crate) dead_letter_id: Option<Uuid>,
}

impl Api {
    /// Accepts a transaction whose event becomes a dead letter.
    pub(crate) async fn dead_lettered(&self) -> Letter {
        let account = self.open_account("EUR").await;
        self.dead_lettered_of(&account).await
    }

    pub(crate) async fn dead_lettered_of(&self, account: &str) -> Letter {
        let transaction = self.accept(account, &Uuid::new_v4().to_string()).await;
        Letter::exhausted(&transaction).die(&self.pool).await
    }

    pub(crate) async fn replay(&self, letter: &Letter) -> Answer {
        let path = format!("{}/replay", letter.path());
        self.post(&path, &json!({ "reason": "mended" })).await
    }

    pub(crate) async fn discard(&self, letter: &Letter) -> Answer {
        let path = format!("{}/discard", letter.path());
        self.post(&path, &json!({ "reason": "paid in cash" })).await
    }

    pub(crate) async fn transaction(&self, id: Option<Uuid>) -> Value {
        let path = format!("/v1/transactions/{}", id.unwrap());
        self.get(&path).await.json()
    }

    /// The rows that replays and discards put into the outbox: all but accepted transactions.
    pub(crate) async fn sent(&self) -> Vec<Sent> {
        sqlx::query_as(
            "SELECT event_id, account_id, aggregate_id, lane, topic, partition_key, event_type,
                    payload::text AS payload, dead_letter_id
               FROM outbox_events
              WHERE event_type <> 'transaction.created' ORDER BY seq",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    pub(crate) async fn count(&self, what: &str) -> i64 {
        let count = format!("SELECT count(*) FROM {what}");
        let count = sqlx::query_scalar(sqlx::AssertSqlSafe(count));
        count.fetch_one(&self.pool).await.unwrap()
    }
}
