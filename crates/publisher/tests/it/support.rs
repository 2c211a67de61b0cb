use std::{collections::BTreeMap, future::Future, net::SocketAddr, time::Duration};

use common::{
    admin::Readiness,
    db::DatabaseSettings,
    outbox::{self, OutboxEvent},
    settings::parse_from,
    types::{AccountId, EventId, EventType, Lane, TransactionId},
};
use publisher::{Database, Settings};
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
};
use sqlx::{ConnectOptions, PgPool};
use tokio::{
    task::JoinHandle,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a condition may take to come true on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) const PARTITIONS: i32 = 8;

pub(crate) fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS names the test instance's broker")
}

/// Waits until a condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = Instant::now() + PATIENCE;
    let mut looks = interval(LOOK_INTERVAL);
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        looks.tick().await;
    }
}

/// A database, topics and a consumer group of a test's own.
pub(crate) struct World {
    pub(crate) pool: PgPool,
    pub(crate) transactions: String,
    pub(crate) results: String,
    pub(crate) dead_letters: String,
    pub(crate) group: String,
    pub(crate) brokers: String,
    /// Where publishers find the database, if not where the test does.
    pub(crate) database_address: Option<SocketAddr>,
}

impl World {
    pub(crate) fn new(pool: PgPool) -> Self {
        let id = Uuid::new_v4().simple();
        Self {
            pool,
            transactions: format!("transactions-{id}"),
            results: format!("results-{id}"),
            dead_letters: format!("dead-letters-{id}"),
            group: format!("worker-{id}"),
            brokers: brokers(),
            database_address: None,
        }
    }

    pub(crate) fn settings(&self, more: &[&str]) -> Settings {
        let mut options = (*self.pool.connect_options()).clone();
        if let Some(address) = self.database_address {
            options = options.host("127.0.0.1").port(address.port());
        }
        let mut url = options.to_url_lossy();
        // The service's own role: what it may not do, a test must not pass with.
        url.query_pairs_mut()
            .append_pair("options[role]", "postonce_publisher");
        let own = [
            "publisher".to_owned(),
            format!("--database-url={url}"),
            format!("--kafka-brokers={}", self.brokers),
            format!("--transactions-topic={}", self.transactions),
            format!("--results-topic={}", self.results),
            format!("--dead-letters-topic={}", self.dead_letters),
            format!("--consumer-group={}", self.group),
            format!("--topic-partitions={PARTITIONS}"),
            "--lane-retry-interval-ms=200".to_owned(),
            "--database-connections-max=4".to_owned(),
        ];
        // Most tests look at the marks.
        let kept = (!more.iter().any(|own| own.starts_with("--outbox-retention")))
            .then_some("--outbox-retention=1h");
        let arguments: Vec<&str> = own
            .iter()
            .map(String::as_str)
            .chain(kept)
            .chain(more.iter().copied())
            .collect();
        parse_from::<Settings>(&arguments).unwrap()
    }

    pub(crate) fn database(&self) -> Database {
        Database::new(self.pool.clone(), &DatabaseSettings::default())
    }

    pub(crate) fn publisher(&self, more: &[&str]) -> Publisher {
        let settings = self.settings(more);
        let readiness = Readiness::default();
        let token = CancellationToken::new();
        let task = tokio::spawn(publisher::run(settings, &readiness, token.clone()));
        Publisher {
            readiness,
            token,
            task,
        }
    }

    /// Writes events of an account, in one transaction each, as concurrent requests would.
    pub(crate) async fn append(&self, account: AccountId, payloads: &[String]) -> Vec<Uuid> {
        let mut connection = self.pool.acquire().await.unwrap();
        let events: Vec<OutboxEvent> = payloads
            .iter()
            .map(|payload| {
                let transaction_id = TransactionId::new();
                OutboxEvent {
                    event_id: EventId::from(transaction_id),
                    account_id: account,
                    transaction_id,
                    event_type: EventType::TransactionCreated,
                    payload: payload.clone(),
                }
            })
            .collect();
        outbox::insert(&mut connection, &self.transactions, &events)
            .await
            .unwrap();
        events.iter().map(|event| event.event_id.0).collect()
    }

    pub(crate) async fn pending(&self) -> i64 {
        self.count("status = 'PENDING'").await
    }

    pub(crate) async fn count(&self, condition: &str) -> i64 {
        let statement = format!("SELECT count(*) FROM outbox_events WHERE {condition}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub(crate) async fn all_published(&self) {
        eventually("every row is marked", || async {
            self.pending().await == 0
        })
        .await;
    }

    /// How many lanes each session holds, by backend.
    pub(crate) async fn lane_holders(&self) -> BTreeMap<i32, i64> {
        let rows: Vec<(i32, i64)> = sqlx::query_as(
            "SELECT pid, count(*) FROM pg_locks
              WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND objid::bigint < 64
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
              GROUP BY pid",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        rows.into_iter().collect()
    }

    pub(crate) async fn all_lanes_held_by(&self, holders: usize) {
        eventually("the lanes are shared out", || async {
            let held = self.lane_holders().await;
            held.len() == holders && held.values().sum::<i64>() == 64
        })
        .await;
    }

    pub(crate) async fn create_topics(&self, partitions: i32, settings: &[(&str, &str)]) {
        for name in [&self.transactions, &self.results, &self.dead_letters] {
            create_topic(name, partitions, settings).await;
        }
    }

    /// Writes the transactions of the events in the outbox, as the api does with them.
    pub(crate) async fn accept_all(&self) {
        sqlx::query(
            "INSERT INTO transactions (id, account_id, amount_cents, currency, type, idempotency_key)
             SELECT event_id, account_id, 1, 'EUR', 'CREDIT', event_id::text
               FROM outbox_events WHERE event_type = 'transaction.created'",
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// What a transaction says of itself: its state, and why.
    pub(crate) async fn standing(&self, transaction: Uuid) -> (String, Option<String>) {
        sqlx::query_as("SELECT status, failure_reason FROM transactions WHERE id = $1")
            .bind(transaction)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub(crate) async fn execute(&self, statement: &str) {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub(crate) async fn number(&self, query: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

/// A publisher in this process, with everything that belongs to one.
pub(crate) struct Publisher {
    pub(crate) readiness: Readiness,
    token: CancellationToken,
    task: JoinHandle<()>,
}

impl Publisher {
    pub(crate) async fn ready(&self) {
        eventually("the publisher is ready", || async {
            self.readiness.reasons().is_empty()
        })
        .await;
    }

    /// Waits until a component is unready for a reason that contains a text.
    pub(crate) async fn unready(&self, component: &str, text: &str) {
        let what = format!("{component} is unready: {text}");
        eventually(&what, || async {
            let reasons = self.readiness.reasons();
            reasons
                .get(component)
                .is_some_and(|reason| reason.contains(text))
        })
        .await;
    }

    /// SIGTERM.
    pub(crate) async fn stop(self) {
        self.token.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap();
    }

    /// As near to SIGKILL as a task comes: everything it holds is dropped where it stands.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub(crate) async fn create_topic(name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let created = admin()
        .create_topics([&topic], &AdminOptions::new())
        .await
        .unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

pub(crate) async fn delete_topic(name: &str) {
    let deleted = admin()
        .delete_topics(&[name], &AdminOptions::new())
        .await
        .unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

/// Sets one setting of a topic; its others go back to their defaults.
pub(crate) async fn set_topic(name: &str, key: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
    let altered = admin()
        .alter_configs([&change], &AdminOptions::new())
        .await
        .unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");
}

pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .unwrap()
}

/// An account in a lane.
pub(crate) fn account_in(lane: i16) -> AccountId {
    std::iter::repeat_with(AccountId::new)
        .find(|account| Lane::of(*account).number() == lane)
        .unwrap()
}

/// A JSON string that no compression makes smaller than half of it.
pub(crate) fn noise(bytes: usize) -> String {
    let mut text: String = std::iter::repeat_with(|| Uuid::new_v4().simple().to_string())
        .take(bytes / 32 + 1)
        .collect();
    text.truncate(bytes);
    format!(r#"{{"noise": "{text}"}}"#)
}

pub(crate) fn payloads(count: usize) -> Vec<String> {
    (0..count).map(|n| format!(r#"{{"n": {n}}}"#)).collect()
}
