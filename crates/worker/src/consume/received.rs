use common::types::EventId;
use rdkafka::Message;

use crate::event::{self, Event, Place, Undecodable};

/// A record as it was received.
#[derive(Debug)]
pub(super) enum Received {
    Event(Event),
    Unusable(Unusable),
}

/// A record that can never be applied.
#[derive(Debug)]
pub struct Unusable {
    /// Where it stands.
    pub place: Place,
    /// Its `ce_id`, if it has one that can be read.
    pub event_id: Option<EventId>,
    /// What is wrong with it.
    pub reason: Undecodable,
}

impl Received {
    pub(super) fn read(record: &impl Message, epoch: u64) -> Self {
        let place = Place {
            partition: record.partition(),
            offset: record.offset(),
            epoch,
        };
        match Event::decode(record, epoch) {
            Ok(event) => Self::Event(event),
            Err(reason) => Self::Unusable(Unusable {
                place,
                event_id: event::claimed_id(record),
                reason,
            }),
        }
    }

    pub(super) fn place(&self) -> Place {
        match self {
            Self::Event(event) => event.place,
            Self::Unusable(unusable) => unusable.place,
        }
    }
}
