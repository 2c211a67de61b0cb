//! The worker's settings: flags and environment variables.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser};
use common::{
    db::{DatabaseSettings, DatabaseUrl, Isolation},
    runtime::RuntimeSettings,
    settings::{broker_list, duration, topic_name},
    shutdown::ShutdownSettings,
    telemetry::LogSettings,
};
use sqlx::{PgPool, postgres::PgConnectOptions};

use crate::backoff::Backoff;

/// The name in logs and in `pg_stat_activity`.
pub const SERVICE: &str = "worker";

/// Every statement of the worker looks rows up by key, in tables that grow from nothing within
/// seconds. A sequential scan planned while they were small would stay in the prepared statement,
/// and under SERIALIZABLE lock the whole table against every writer.
const POINT_LOOKUPS: [(&str, &str); 4] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// Postonce's worker: reads transaction.created events and posts their transactions to the ledger
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Config {
    /// The worker's database, postgres://user:password@host:port/database
    #[arg(
        long,
        env,
        hide_env_values = true,
        default_value = "postgres://postonce_worker:postonce_worker@127.0.0.1:15432/postonce"
    )]
    pub database_url: DatabaseUrl,

    /// Database sessions.
    #[command(flatten)]
    pub database: DatabaseSettings,

    /// How slices are applied.
    #[command(flatten)]
    pub slices: SliceSettings,

    /// The broker and the topics.
    #[command(flatten)]
    pub kafka: KafkaSettings,

    /// What happens to events that cannot be applied.
    #[command(flatten)]
    pub failures: FailureSettings,

    /// How long closed events are remembered, as a number with ms, s, m, h or d; 0 keeps them for
    /// ever. Longer than the topic keeps its records, with a margin
    #[arg(long, env, default_value = "30d", value_parser = duration)]
    pub processed_events_retention: Duration,

    /// Where /health, /ready and /metrics are served
    #[arg(long, env, default_value = "127.0.0.1:9103")]
    pub admin_bind_addr: SocketAddr,

    /// The threads.
    #[command(flatten)]
    pub runtime: RuntimeSettings,

    /// Logs.
    #[command(flatten)]
    pub logs: LogSettings,

    /// Shutdown.
    #[command(flatten)]
    pub shutdown: ShutdownSettings,
}

/// How slices are applied.
#[derive(Args, Clone, Copy, Debug)]
pub struct SliceSettings {
    /// The isolation level of the transactions that post; posting is right under both
    #[arg(long, env, value_enum, default_value_t = Isolation::Serializable)]
    pub worker_isolation: Isolation,

    /// Most events applied in one transaction
    #[arg(long, env, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slice_events_max: u32,
}

/// What happens to events that cannot be applied.
#[derive(Args, Clone, Copy, Debug)]
pub struct FailureSettings {
    /// Retries of an event behind its first attempt, before it becomes a dead letter; 0 counts as 1
    #[arg(long, env, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub retries_max: u32,

    /// Longest pause before an event's first retry, in milliseconds; it doubles with each retry, and
    /// any part of it is taken at random
    #[arg(long, env, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub retry_pause_first_ms: u64,

    /// Longest pause before any retry of an event, in milliseconds
    #[arg(long, env, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub retry_pause_max_ms: u64,

    /// So many different accounts whose events fail alike, and none applied in between, are a fault of
    /// the system: the worker waits for it to be mended, and gives up none of them
    #[arg(long, env, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub systemic_failures_max: u32,
}

impl FailureSettings {
    /// The pauses between the attempts at one event.
    #[must_use]
    pub const fn retry_pauses(&self) -> Backoff {
        Backoff::new(
            Duration::from_millis(self.retry_pause_first_ms),
            Duration::from_millis(self.retry_pause_max_ms),
        )
    }
}

/// The broker, the topics and the group.
#[derive(Args, Clone, Debug)]
pub struct KafkaSettings {
    /// Kafka's addresses, host:port, separated by commas
    #[arg(long, env, default_value = "127.0.0.1:19092", value_parser = broker_list)]
    pub kafka_brokers: String,

    /// The topic of the events to apply
    #[arg(long, env, default_value = "transactions", value_parser = topic_name)]
    pub transactions_topic: String,

    /// The topic of the events that tell what became of transactions
    #[arg(long, env, default_value = "transactions.results", value_parser = topic_name)]
    pub results_topic: String,

    /// The topic of the records that were given up
    #[arg(long, env, default_value = "transactions.dlq", value_parser = topic_name)]
    pub dead_letters_topic: String,

    /// Sends a copy of each business rejection to the dead letter topic, too
    #[arg(long, env, default_value_t = false, action = clap::ArgAction::Set)]
    pub dead_letter_rejections: bool,

    /// The consumer group: its members share the topic's partitions
    #[arg(long, env, default_value = "postonce-worker", value_parser = not_empty)]
    pub consumer_group: String,
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

impl Config {
    /// How to open a session of the worker.
    #[must_use]
    pub fn session(&self) -> PgConnectOptions {
        self.database_url
            .session(&self.database, SERVICE, self.slices.worker_isolation)
            .options(POINT_LOOKUPS)
    }

    /// The worker's pool; nothing is connected until it is used.
    #[must_use]
    pub fn pool(&self) -> PgPool {
        self.database.pool(self.session())
    }

    /// How long closed events are remembered; none keeps them for ever.
    #[must_use]
    pub fn processed_events_retention(&self) -> Option<Duration> {
        (!self.processed_events_retention.is_zero()).then_some(self.processed_events_retention)
    }

    /// Rules over several settings; the error names the variables.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let kafka = &self.kafka;
        if kafka.transactions_topic == kafka.results_topic {
            return Err(
                "RESULTS_TOPIC (--results-topic): must differ from TRANSACTIONS_TOPIC".to_owned(),
            );
        }
        if [&kafka.transactions_topic, &kafka.results_topic].contains(&&kafka.dead_letters_topic) {
            return Err(
                "DEAD_LETTERS_TOPIC (--dead-letters-topic): must differ from TRANSACTIONS_TOPIC and \
                 RESULTS_TOPIC"
                    .to_owned(),
            );
        }
        let failures = &self.failures;
        if failures.retry_pause_max_ms < failures.retry_pause_first_ms {
            return Err(
                "RETRY_PAUSE_MAX_MS (--retry-pause-max-ms): must not be shorter than \
                 RETRY_PAUSE_FIRST_MS"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use common::settings::parse_from;

    use super::*;

    #[test]
    fn defaults_are_valid_and_in_force() {
        let config: Config = parse_from(&["worker"]).unwrap();
        assert_eq!(config.slices.worker_isolation, Isolation::Serializable);
        assert_eq!(config.slices.slice_events_max, 1_000);
        assert_eq!(
            config.processed_events_retention(),
            Some(Duration::from_hours(720))
        );
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let table = [
            ("--slice-events-max=0", "SLICE_EVENTS_MAX"),
            ("--slice-events-max=many", "SLICE_EVENTS_MAX"),
            ("--worker-isolation=chaos", "WORKER_ISOLATION"),
            ("--kafka-brokers= ", "KAFKA_BROKERS"),
            ("--kafka-brokers=localhost", "KAFKA_BROKERS"),
            ("--transactions-topic=", "TRANSACTIONS_TOPIC"),
            ("--results-topic=a b", "RESULTS_TOPIC"),
            (
                "--processed-events-retention=-1",
                "PROCESSED_EVENTS_RETENTION",
            ),
            ("--admin-bind-addr=here", "ADMIN_BIND_ADDR"),
            ("--database-url=mysql://u:hunter2@h/d", "DATABASE_URL"),
        ];
        for (flag, variable) in table {
            let error = parse_from::<Config>(&["worker", flag]).unwrap_err();
            assert!(error.starts_with(variable), "{flag}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_retention_of_0_keeps_for_ever() {
        let config: Config = parse_from(&["worker", "--processed-events-retention=0"]).unwrap();
        assert_eq!(config.processed_events_retention(), None);
    }
}
