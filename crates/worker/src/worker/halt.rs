use common::types::{AccountId, EventId};
use rdkafka::error::KafkaError;
use thiserror::Error;
use tracing::error;

use crate::{
    consume::Unusable,
    event::{Event, Place},
    metrics,
    slice::ApplyError,
};

/// Why a worker stopped. Until somebody mends the cause and restarts it, it consumes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Halt {
    /// One record cannot be applied, and none may be skipped.
    #[error(
        "stopped at {topic} partition {} offset {}, event {}: {reason}",
        place.partition, place.offset, name(*event_id)
    )]
    Event {
        /// The topic.
        topic: String,
        /// Where the record stands.
        place: Place,
        /// Its event's id, if it can be read.
        event_id: Option<EventId>,
        /// Its account, if it can be read.
        account_id: Option<AccountId>,
        /// What is wrong.
        reason: String,
    },
    /// No event could be applied.
    #[error("stopped: {reason}")]
    Everything {
        /// What is wrong.
        reason: String,
    },
}

fn name(id: Option<EventId>) -> String {
    id.map_or_else(|| "without a readable id".to_owned(), |id| id.to_string())
}

impl Halt {
    /// Where the record stands that cannot be applied, if it is one record.
    #[must_use]
    pub const fn place(&self) -> Option<Place> {
        match self {
            Self::Event { place, .. } => Some(*place),
            Self::Everything { .. } => None,
        }
    }

    /// The id of the event that cannot be applied, if it is one event and it can be read.
    #[must_use]
    pub const fn event_id(&self) -> Option<EventId> {
        match self {
            Self::Event { event_id, .. } => *event_id,
            Self::Everything { .. } => None,
        }
    }

    pub(super) fn unusable(topic: &str, unusable: &Unusable) -> Self {
        Self::Event {
            topic: topic.to_owned(),
            place: unusable.place,
            event_id: unusable.event_id,
            account_id: None,
            reason: chain(&unusable.reason),
        }
    }

    pub(super) fn refused(topic: &str, event: &Event, error: &ApplyError) -> Self {
        Self::Event {
            topic: topic.to_owned(),
            place: event.place,
            event_id: Some(event.id()),
            account_id: Some(event.transaction.account_id),
            reason: coded(error),
        }
    }

    pub(super) fn everything(error: &ApplyError) -> Self {
        Self::Everything {
            reason: coded(error),
        }
    }

    pub(super) fn consumer(error: &KafkaError) -> Self {
        let halt = Self::Everything {
            reason: format!("the consumer failed for good: {error}"),
        };
        halt.report();
        halt
    }

    /// Writes it down, once.
    pub(super) fn report(&self) {
        match self {
            Self::Event {
                topic,
                place,
                event_id,
                account_id,
                reason,
            } => {
                metrics::refused();
                error!(
                    topic,
                    partition = place.partition,
                    offset = place.offset,
                    event_id = event_id.map(tracing::field::display),
                    account_id = account_id.map(tracing::field::display),
                    reason,
                    "an event cannot be applied: the worker stops, and nothing is skipped"
                );
            }
            Self::Everything { reason } => {
                error!(
                    reason,
                    "no event can be applied: the worker stops, and nothing is skipped"
                );
            }
        }
    }
}

fn coded(error: &ApplyError) -> String {
    match error.sqlstate() {
        Some(code) => format!("{} (SQLSTATE {code})", chain(error)),
        None => chain(error),
    }
}

/// An error and its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}
