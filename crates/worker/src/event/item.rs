use common::types::{AccountId, DeadLetterClass, EventId};
use rdkafka::message::Message;
use uuid::Uuid;

use super::{Event, Place, Raw, Undecodable, raw};

/// A record of the topic, as a slice holds it.
#[derive(Debug)]
pub enum Item {
    /// An event to apply.
    Event(Event),
    /// A record that can never be applied.
    Unusable(Unusable),
}

/// A record that is no event that could ever be applied.
#[derive(Debug)]
pub struct Unusable {
    /// Where it stands.
    pub place: Place,
    /// The record itself.
    pub raw: Raw,
    /// Its `ce_id`, if it has one that can be read.
    pub event_id: Option<EventId>,
    /// The account that is its key, if it can be read.
    pub account_id: Option<AccountId>,
    /// What is wrong with it.
    pub reason: Undecodable,
}

impl Item {
    /// Reads a record that an assignment of its partition brought.
    pub fn read(record: &impl Message, epoch: u64) -> Self {
        let place = Place {
            partition: record.partition(),
            offset: record.offset(),
            epoch,
        };
        let (headers, readable) = raw::headers(record.headers());
        let (key, value) = (record.key(), record.payload());
        let raw = Raw::new(key, value, &headers, record.timestamp().to_millis());
        let decoded = if readable {
            super::transaction(&headers, key, value)
        } else {
            Err(Undecodable::HeaderName)
        };
        match decoded {
            Ok(transaction) => Self::Event(Event {
                place,
                transaction,
                raw,
            }),
            Err(reason) => Self::Unusable(Unusable {
                place,
                event_id: claimed(&headers, "ce_id").map(EventId),
                account_id: key.and_then(uuid).map(AccountId),
                raw,
                reason,
            }),
        }
    }

    /// The event, if it is one.
    #[must_use]
    pub const fn event(&self) -> Option<&Event> {
        match self {
            Self::Event(event) => Some(event),
            Self::Unusable(_) => None,
        }
    }

    /// Where its record stands.
    #[must_use]
    pub const fn place(&self) -> Place {
        match self {
            Self::Event(event) => event.place,
            Self::Unusable(unusable) => unusable.place,
        }
    }

    /// Its record.
    #[must_use]
    pub const fn raw(&self) -> &Raw {
        match self {
            Self::Event(event) => &event.raw,
            Self::Unusable(unusable) => &unusable.raw,
        }
    }

    /// The account that it claims; the nil id if none can be read.
    #[must_use]
    pub fn account_id(&self) -> AccountId {
        match self {
            Self::Event(event) => event.transaction.account_id,
            Self::Unusable(unusable) => unusable.account_id.unwrap_or(AccountId(Uuid::nil())),
        }
    }

    /// The event id that it claims, if one can be read.
    #[must_use]
    pub fn event_id(&self) -> Option<EventId> {
        match self {
            Self::Event(event) => Some(event.id()),
            Self::Unusable(unusable) => unusable.event_id,
        }
    }
}

impl Undecodable {
    /// The class of the dead letter that becomes of the record.
    #[must_use]
    pub const fn class(&self) -> DeadLetterClass {
        match self {
            Self::SchemaVersion(_) => DeadLetterClass::UnknownSchemaVersion,
            _ => DeadLetterClass::Undecodable,
        }
    }
}

/// An id that a header claims.
fn claimed(headers: &[(&str, Option<&[u8]>)], name: &str) -> Option<Uuid> {
    let (_, value) = headers.iter().find(|(header, _)| *header == name)?;
    value.and_then(uuid)
}

fn uuid(text: &[u8]) -> Option<Uuid> {
    Uuid::try_parse_ascii(text).ok()
}
