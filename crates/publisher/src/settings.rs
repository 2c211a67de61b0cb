//! What can be set about the publisher, from flags and environment variables.

use std::{net::SocketAddr, time::Duration};

use clap::{ArgAction, Parser, Subcommand, value_parser};
use common::{
    db::{DatabaseSettings, DatabaseUrl},
    runtime::RuntimeSettings,
    settings::{broker_list, duration, topic_name},
    shutdown::ShutdownSettings,
    telemetry::LogSettings,
};

/// How many topics rows go to.
pub(crate) const TOPICS: usize = 3;
/// The place of the topic of dead letters among them.
pub(crate) const DEAD_LETTERS: usize = 2;

/// Moves events from the outbox to Kafka, in order for each account
#[derive(Clone, Debug, Parser)]
#[command(name = "publisher", version)]
pub struct Settings {
    /// What to do instead of publishing.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where the database is. It must be a direct connection or a session-mode pooler, never a
    /// transaction-mode pooler: lanes are held by session advisory locks, and the hint needs LISTEN
    #[arg(
        long,
        env,
        hide_env_values = true,
        default_value = "postgres://postonce_publisher:postonce_publisher@127.0.0.1:15432/postonce"
    )]
    pub database_url: DatabaseUrl,

    /// Sessions of the database; two more than these are open, for the lanes and for the hint.
    #[command(flatten)]
    pub database: DatabaseSettings,

    /// Where Kafka is and what is kept there.
    #[command(flatten)]
    pub kafka: KafkaSettings,

    /// How rows are taken and sent.
    #[command(flatten)]
    pub publishing: PublishingSettings,

    /// Where /health, /ready and /metrics are served
    #[arg(long, env, default_value = "127.0.0.1:9102")]
    pub admin_bind_addr: SocketAddr,

    /// The threads.
    #[command(flatten)]
    pub runtime: RuntimeSettings,

    /// Logs.
    #[command(flatten)]
    pub logs: LogSettings,

    /// The end.
    #[command(flatten)]
    pub shutdown: ShutdownSettings,
}

/// Where Kafka is, and the topics and the consumer group there.
#[derive(Clone, Debug, clap::Args)]
pub struct KafkaSettings {
    /// The brokers to ask first, host:port with commas between them
    #[arg(long, env, default_value = "127.0.0.1:19092", value_parser = broker_list)]
    pub kafka_brokers: String,

    /// The topic of accepted transactions
    #[arg(long, env, default_value = "transactions", value_parser = topic_name)]
    pub transactions_topic: String,

    /// The topic of the worker's results
    #[arg(long, env, default_value = "transactions.results", value_parser = topic_name)]
    pub results_topic: String,

    /// The topic of the records that were given up
    #[arg(long, env, default_value = "transactions.dlq", value_parser = topic_name)]
    pub dead_letters_topic: String,

    /// The worker's consumer group, whose lag is measured
    #[arg(long, env, default_value = "postonce-worker")]
    pub consumer_group: String,

    /// How many partitions each topic has; a lane's events go to partition lane % this
    #[arg(long, env, default_value_t = 8, value_parser = value_parser!(i32).range(1..=64))]
    pub topic_partitions: i32,

    /// On how many brokers a topic is kept when it is created
    #[arg(long, env, default_value_t = 1, value_parser = value_parser!(i32).range(1..=15))]
    pub topic_replication: i32,

    /// Whether absent topics are created
    #[arg(long, env, default_value_t = true, action = ArgAction::Set)]
    pub topics_create: bool,
}

/// How rows are taken from the outbox and sent.
#[derive(Clone, Debug, clap::Args)]
pub struct PublishingSettings {
    /// Most rows of one lane on their way to the broker at once
    #[arg(long, env, default_value_t = 2_000, value_parser = value_parser!(u16).range(1..=10_000))]
    pub publish_lane_rows_max: u16,

    /// Most rows of all lanes on their way to the broker at once
    #[arg(long, env, default_value_t = 8_192, value_parser = value_parser!(u32).range(64..=100_000))]
    pub publish_rows_max: u32,

    /// The longest time between two looks for new rows in all lanes, in milliseconds; a hint of the
    /// api or the worker makes the publisher look into the lanes it names sooner
    #[arg(long, env, default_value_t = 1_000, value_parser = value_parser!(u64).range(10..=60_000))]
    pub poll_interval_max_ms: u64,

    /// How long until a lane that was stopped by a refused row is tried again, in milliseconds
    #[arg(long, env, default_value_t = 30_000, value_parser = value_parser!(u64).range(100..=3_600_000))]
    pub lane_retry_interval_ms: u64,

    /// How long a published row is kept, as a number with ms, s, m, h or d; 0 deletes a row as soon
    /// as the broker has it, which is a tenth less work for everything
    #[arg(long, env, default_value = "0", value_parser = duration)]
    pub outbox_retention: Duration,
}

/// What to do instead of publishing.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Writes the events of transactions that wait to be posted to the outbox again, for the day a
    /// topic was lost
    ///
    /// These are the PENDING ones, and those PROCESSING of which no event is parked for a retry or a
    /// dead letter: their event was replayed.
    ///
    /// The event id of `transaction.created` is the transaction's id, so the worker recognises an
    /// event that it gets twice, and nothing is posted twice.
    ///
    /// Stop all publishers before, if the order within an account matters: one that runs may have
    /// read a younger transaction's row already. While this command runs, nothing is accepted.
    Resend {
        /// Accounts with a transaction that has waited for at least so long, as a number with ms, s,
        /// m, h or d; of these accounts all transactions that wait are sent again, in their order
        #[arg(long, value_parser = duration)]
        pending_older_than: Duration,
    },
}

impl Settings {
    /// Rules over several settings; the error names the variables.
    pub fn check(&self) -> Result<(), String> {
        let [transactions, results, dead_letters] = self.kafka.topics();
        if transactions == results {
            return Err(
                "RESULTS_TOPIC (--results-topic): must differ from TRANSACTIONS_TOPIC".to_owned(),
            );
        }
        if [transactions, results].contains(&dead_letters) {
            return Err(
                "DEAD_LETTERS_TOPIC (--dead-letters-topic): must differ from TRANSACTIONS_TOPIC and \
                 RESULTS_TOPIC"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

impl KafkaSettings {
    /// The topics that rows go to; that of dead letters is [`DEAD_LETTERS`].
    #[must_use]
    pub fn topics(&self) -> [String; TOPICS] {
        [
            self.transactions_topic.clone(),
            self.results_topic.clone(),
            self.dead_letters_topic.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use common::settings::parse_from;

    use super::*;

    #[test]
    fn defaults_run_the_local_stack() {
        let settings = parse_from::<Settings>(&["publisher"]).unwrap();
        assert_eq!(
            settings.kafka.topics(),
            ["transactions", "transactions.results", "transactions.dlq"]
        );
        assert_eq!(settings.kafka.topics()[DEAD_LETTERS], "transactions.dlq");
        assert_eq!(settings.kafka.topic_partitions, 8);
        assert!(settings.kafka.topics_create);
        assert_eq!(settings.publishing.outbox_retention, Duration::ZERO);
        assert_eq!(settings.admin_bind_addr.port(), 9102);
        assert!(settings.command.is_none());
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn a_bad_setting_is_one_line_that_names_its_variable() {
        let table = [
            ("TOPIC_PARTITIONS", "--topic-partitions=0"),
            ("TOPIC_PARTITIONS", "--topic-partitions=65"),
            ("TOPIC_REPLICATION", "--topic-replication=none"),
            ("TOPICS_CREATE", "--topics-create=perhaps"),
            ("TRANSACTIONS_TOPIC", "--transactions-topic=a b"),
            ("RESULTS_TOPIC", "--results-topic=.."),
            ("DEAD_LETTERS_TOPIC", "--dead-letters-topic=a b"),
            ("KAFKA_BROKERS", "--kafka-brokers=localhost"),
            ("PUBLISH_LANE_ROWS_MAX", "--publish-lane-rows-max=0"),
            ("PUBLISH_ROWS_MAX", "--publish-rows-max=1"),
            ("POLL_INTERVAL_MAX_MS", "--poll-interval-max-ms=5"),
            ("LANE_RETRY_INTERVAL_MS", "--lane-retry-interval-ms=1"),
            ("OUTBOX_RETENTION", "--outbox-retention=7"),
            ("OUTBOX_RETENTION", "--outbox-retention=7w"),
            ("DATABASE_URL", "--database-url=localhost"),
        ];
        for (variable, flag) in table {
            let error = parse_from::<Settings>(&["publisher", flag]).unwrap_err();
            assert!(
                error.starts_with(&format!("{variable} (--")),
                "{flag}: {error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn topics_must_differ() {
        let arguments = ["publisher", "--transactions-topic=t", "--results-topic=t"];
        let settings = parse_from::<Settings>(&arguments).unwrap();
        assert!(settings.check().unwrap_err().starts_with("RESULTS_TOPIC"));
        for other in ["--transactions-topic=d", "--results-topic=d"] {
            let arguments = ["publisher", "--dead-letters-topic=d", other];
            let settings = parse_from::<Settings>(&arguments).unwrap();
            let error = settings.check().unwrap_err();
            assert!(error.starts_with("DEAD_LETTERS_TOPIC"), "{error}");
        }
    }

    #[test]
    fn resend_needs_an_age() {
        assert!(parse_from::<Settings>(&["publisher", "resend"]).is_err());
        let arguments = ["publisher", "resend", "--pending-older-than=10m"];
        let settings = parse_from::<Settings>(&arguments).unwrap();
        let Some(Command::Resend { pending_older_than }) = settings.command else {
            panic!("{:?}", settings.command)
        };
        assert_eq!(pending_older_than, Duration::from_mins(10));
    }
}
