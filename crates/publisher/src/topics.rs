//! Sees to it that the topics are there, with the partitions that are configured.
//!
//! A lane's events go to partition `lane % configured`. With another number of partitions that
//! would be another partition than before, and an account's events could pass each other: nothing
//! is sent until the numbers agree.

use std::{sync::Arc, time::Duration};

use common::types::LaneSet;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep},
};

use crate::{
    health::HealthSide,
    hinted::Hinted,
    quiet::Quiet,
    settings::{KafkaSettings, TOPICS},
};

/// How long a question to the brokers may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How often topics that are right are looked at again.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How often while something is wrong.
const CHECK_INTERVAL_WRONG: Duration = Duration::from_millis(500);
/// The topic's limit for a batch of records, bytes.
const MESSAGE_BYTES_KEY: &str = "max.message.bytes";

/// What is known about the topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicsState {
    /// Nothing may be sent.
    NotReady,
    /// Events may be sent.
    Ready {
        /// The smallest of the topics' `max.message.bytes`.
        message_bytes_max: i32,
    },
}

/// Why events cannot be sent.
#[derive(Debug, Error)]
pub(crate) enum TopicsError {
    #[error("cannot reach a broker")]
    Broker(#[source] KafkaError),
    #[error("{0}")]
    Wrong(String),
    #[error("the check did not run")]
    NotRun(#[from] JoinError),
}

/// Watches over the topics, and tells the cycle what it may do.
pub(crate) struct TopicKeeper {
    pub(crate) settings: KafkaSettings,
    pub(crate) broker: HealthSide,
    pub(crate) topics: HealthSide,
    pub(crate) state: watch::Sender<TopicsState>,
    /// When the brokers last answered.
    pub(crate) answered: watch::Sender<Option<Instant>>,
    /// Asks for a check at once.
    pub(crate) recheck: Arc<Notify>,
    /// Wakes the cycle after a change, to look at all lanes.
    pub(crate) hinted: Arc<Hinted>,
}

impl TopicKeeper {
    /// Checks again and again, until it is dropped.
    pub(crate) async fn keep(self) {
        loop {
            let checked = match admin_client(&self.settings.kafka_brokers) {
                Ok(admin) => {
                    let admin = Arc::new(admin);
                    let ended = self.keep_with(&admin).await;
                    // Its thread is waited for, which may take a moment.
                    spawn_blocking(move || drop(admin));
                    ended
                }
                Err(error) => Err(TopicsError::Broker(error)),
            };
            if let Err(error) = checked {
                self.tell(&Err(error));
            }
            sleep(CHECK_INTERVAL_WRONG).await;
        }
    }

    async fn keep_with(&self, admin: &Arc<Admin>) -> Result<(), TopicsError> {
        loop {
            let asked_at = Instant::now();
            let checked = check(admin, &self.settings).await;
            let pause = match checked {
                Ok(_) => CHECK_INTERVAL,
                Err(TopicsError::Wrong(_)) => CHECK_INTERVAL_WRONG,
                // The client may be at fault, and nobody empties the queue of what it logs: begin
                // with a new one.
                Err(error) => return Err(error),
            };
            self.answered.send_replace(Some(asked_at));
            self.tell(&checked);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.recheck.notified() => {}
            }
        }
    }

    fn tell(&self, checked: &Result<i32, TopicsError>) {
        match checked {
            Ok(_) => {
                self.broker.set_ready();
                self.topics.set_ready();
            }
            Err(TopicsError::Wrong(reason)) => {
                self.broker.set_ready();
                self.topics.set_unready(reason.clone());
            }
            Err(TopicsError::Broker(error)) => {
                self.broker
                    .set_unready(format!("cannot reach a broker: {error}"));
            }
            Err(TopicsError::NotRun(error)) => self.broker.set_unready(error.to_string()),
        }
        self.publish(checked);
    }

    /// A broker that cannot be reached for a moment says nothing about the topics: what was right
    /// stays right, and rows wait in the producer.
    fn publish(&self, checked: &Result<i32, TopicsError>) {
        let next = match checked {
            Ok(bytes) => TopicsState::Ready {
                message_bytes_max: *bytes,
            },
            Err(TopicsError::Wrong(_)) => TopicsState::NotReady,
            Err(_) => return,
        };
        let changed = self.state.send_if_modified(|state| {
            let changed = *state != next;
            *state = next;
            changed
        });
        if changed {
            self.hinted.hint(LaneSet::ALL);
        }
    }
}

type Admin = AdminClient<Quiet>;

fn admin_client(brokers: &str) -> Result<Admin, KafkaError> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "postonce-publisher-topics")
        .set("reconnect.backoff.max.ms", "1000")
        .set("log.connection.close", "false")
        .create_with_context(Quiet)
}

/// The smallest `max.message.bytes` of the topics, if all is as configured. Absent topics are
/// created, and count as wrong until the next check sees them.
async fn check(admin: &Arc<Admin>, settings: &KafkaSettings) -> Result<i32, TopicsError> {
    let found = partitions(admin, settings.topics()).await?;
    let missing: Vec<&str> = found
        .iter()
        .filter(|(_, partitions)| partitions.is_none())
        .map(|(topic, _)| topic.as_str())
        .collect();
    if !missing.is_empty() {
        return Err(create(admin, settings, &missing).await);
    }
    let wrong: Vec<String> = found
        .iter()
        .filter_map(|(topic, partitions)| complaint(topic, *partitions, settings))
        .collect();
    if wrong.is_empty() {
        message_bytes_max(admin, settings).await
    } else {
        Err(TopicsError::Wrong(wrong.join("; ")))
    }
}

fn complaint(topic: &str, partitions: Option<usize>, settings: &KafkaSettings) -> Option<String> {
    let partitions = partitions?;
    let configured = settings.topic_partitions;
    (usize::try_from(configured) != Ok(partitions)).then(|| {
        format!(
            "topic {topic} has {partitions} partitions but TOPIC_PARTITIONS is {configured}: \
             nothing is sent until they agree"
        )
    })
}

/// How many partitions each topic has; none if it does not exist.
async fn partitions(
    admin: &Arc<Admin>,
    topics: [String; TOPICS],
) -> Result<Vec<(String, Option<usize>)>, TopicsError> {
    let admin = Arc::clone(admin);
    // All topics are asked for, because a question about one may create it.
    let metadata = spawn_blocking(move || admin.inner().fetch_metadata(None, ANSWER_TIMEOUT))
        .await?
        .map_err(TopicsError::Broker)?;
    let count = |name: &String| {
        let mut known = metadata.topics().iter();
        let topic = known.find(|topic| topic.name() == name)?;
        Some(topic.partitions().len()).filter(|partitions| *partitions > 0)
    };
    let counted = topics.into_iter().map(|name| {
        let partitions = count(&name);
        (name, partitions)
    });
    Ok(counted.collect())
}

async fn create(admin: &Admin, settings: &KafkaSettings, missing: &[&str]) -> TopicsError {
    let names = missing.join(", ");
    if !settings.topics_create {
        return TopicsError::Wrong(format!("no topic {names}, and TOPICS_CREATE is false"));
    }
    let topics = missing.iter().map(|name| {
        let replication = TopicReplication::Fixed(settings.topic_replication);
        NewTopic::new(name, settings.topic_partitions, replication)
    });
    let topics: Vec<NewTopic<'_>> = topics.collect();
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER_TIMEOUT))
        .operation_timeout(Some(ANSWER_TIMEOUT));
    let created = match admin.create_topics(&topics, &options).await {
        Ok(created) => created,
        Err(error) => return TopicsError::Broker(error),
    };
    let refused = created.into_iter().filter_map(Result::err);
    // Another publisher may have been quicker.
    let refused = refused.filter(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists);
    let refused: Vec<String> = refused
        .map(|(name, code)| format!("topic {name} cannot be created: {code}"))
        .collect();
    if refused.is_empty() {
        TopicsError::Wrong(format!("waiting for new topic {names}"))
    } else {
        TopicsError::Wrong(refused.join("; "))
    }
}

async fn message_bytes_max(admin: &Admin, settings: &KafkaSettings) -> Result<i32, TopicsError> {
    let topics = settings.topics();
    let resources = topics
        .each_ref()
        .map(|topic| ResourceSpecifier::Topic(topic));
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT));
    let described = admin
        .describe_configs(&resources, &options)
        .await
        .map_err(TopicsError::Broker)?;
    let unreadable = |why| TopicsError::Wrong(format!("the topics' {MESSAGE_BYTES_KEY}: {why}"));
    let mut smallest = i32::MAX;
    for topic in described {
        let topic = topic.map_err(|code| unreadable(code.to_string()))?;
        let value: i32 = topic
            .get(MESSAGE_BYTES_KEY)
            .and_then(|entry| entry.value.as_ref()?.parse().ok())
            .ok_or_else(|| unreadable("not a number".to_owned()))?;
        smallest = smallest.min(value);
    }
    Ok(smallest)
}
