//! One row on its way out: as what it is sent, and what stops it.

use common::{
    faults::{self, Mutation, mutated},
    types::{AccountId, EventEnvelope, EventId, Lane},
};
use tokio::time::Instant;

use super::{
    Cycle,
    flights::{Kind, Route, SentRow},
    letter::{Letter, LetterRecord},
    sql::PendingRow,
};
use crate::{
    courier::{Content, Headers, NotSent, Parcel, Verdict, is_for_good},
    settings::DEAD_LETTERS,
};

/// Why sending stops.
#[derive(Clone, Copy, Debug)]
pub(super) enum Halt {
    /// For this lane, in this claim.
    Lane,
    /// For all lanes, in this claim.
    All,
}

impl Cycle {
    /// Sends an event's row.
    pub(super) fn send(&mut self, lane: Lane, row: &PendingRow, route: Route) -> Result<(), Halt> {
        let addressed = self
            .topic_of(row)
            .and_then(|topic| Ok((topic, event(row)?)));
        let (topic, content) = addressed.map_err(|reason| self.halt_for(lane, row, reason))?;
        let sent = sent_row(row, topic, Kind::Event);
        self.may_send(lane, topic, route)?;
        let handed_over = self.hand_over(lane, sent, content, route);
        handed_over.map_err(|not_sent| self.halt(lane, sent, not_sent))
    }

    /// Sends a row that names a dead letter: to the topic of dead letters, with what is known of it;
    /// to any other, its record again.
    pub(super) fn send_letter(
        &mut self,
        lane: Lane,
        row: &PendingRow,
        letter: Option<&Letter>,
        route: Route,
    ) -> Result<(), Halt> {
        let addressed = self.topic_of(row).and_then(|topic| {
            let letter = letter.ok_or("its dead letter does not exist")?;
            Ok((topic, letter))
        });
        let (topic, letter) = addressed.map_err(|reason| self.halt_for(lane, row, reason))?;
        self.may_send(lane, topic, route)?;
        if topic == DEAD_LETTERS {
            self.announce(lane, row, letter, route)
        } else {
            let unreadable = |error| format!("its dead letter's headers are unreadable: {error}");
            let record = letter.to_replay().map_err(unreadable);
            let record = record.map_err(|reason| self.halt_for(lane, row, reason))?;
            let sent = sent_row(row, topic, Kind::Event);
            let handed_over = self.hand_over(lane, sent, record.content(), route);
            handed_over.map_err(|not_sent| self.halt(lane, sent, not_sent))
        }
    }

    /// Sends a dead letter, as much of it as fits.
    fn announce(
        &mut self,
        lane: Lane,
        row: &PendingRow,
        letter: &Letter,
        route: Route,
    ) -> Result<(), Halt> {
        let mut form = self.troubles.form(lane, row.seq);
        loop {
            let unreadable = |error| format!("its dead letter's headers are unreadable: {error}");
            let record = letter.to_announce(form).map_err(unreadable);
            let record = record.map_err(|reason| self.halt_for(lane, row, reason))?;
            let sent = sent_row(row, DEAD_LETTERS, Kind::Letter(form));
            let Err(not_sent) = self.hand_over(lane, sent, record.content(), route) else {
                return Ok(());
            };
            match (not_sent, form.shorter()) {
                (NotSent::Refused(code), Some(shorter)) if is_for_good(code) => form = shorter,
                _ => return Err(self.halt(lane, sent, not_sent)),
            }
        }
    }

    /// The place of a row's topic among ours.
    fn topic_of(&self, row: &PendingRow) -> Result<usize, String> {
        let topic = self.topics.iter().position(|topic| *topic == row.topic);
        topic.ok_or_else(|| {
            let topics = self.topics.join(" nor ");
            format!("its topic {} is neither {topics}", row.topic)
        })
    }

    /// Whether a lane's row may go to a topic now.
    fn may_send(&mut self, lane: Lane, topic: usize, route: Route) -> Result<(), Halt> {
        let partition = lane.partition(self.partitions);
        let courier = self.couriers.present(route).ok_or(Halt::All)?;
        if courier.has_failed() {
            return Err(Halt::All);
        }
        // The first row of a lane to a partition goes alone until the broker knows the producer.
        if self.flights.has_topic(lane, topic)
            && !courier.is_known(topic, partition, Instant::now())
        {
            return Err(Halt::Lane);
        }
        Ok(())
    }

    fn hand_over(
        &mut self,
        lane: Lane,
        sent: SentRow,
        content: Content<'_>,
        route: Route,
    ) -> Result<(), NotSent> {
        let gone = NotSent::Broken(Verdict::Unknown);
        let courier = self.couriers.present(route).ok_or(gone)?;
        let parcel = Parcel {
            slot: self.flights.add(lane, route, sent, Instant::now()),
            topic: &self.topics[sent.topic],
            partition: lane.partition(self.partitions),
            content,
        };
        faults::point("publisher.before_send");
        if let Err(not_sent) = courier.send(&parcel) {
            self.flights.take_back(lane);
            return Err(not_sent);
        }
        faults::point("publisher.after_send");
        if mutated(Mutation::MarkBeforeAck) {
            self.landed.push(sent);
        }
        Ok(())
    }

    fn halt(&mut self, lane: Lane, row: SentRow, not_sent: NotSent) -> Halt {
        match not_sent {
            NotSent::QueueFull => Halt::All,
            NotSent::Broken(verdict) => {
                if verdict == Verdict::TopicGone {
                    self.parts.recheck_topics.notify_one();
                }
                Halt::All
            }
            NotSent::Refused(code) => {
                self.refused(lane, row, code, format!("it cannot be sent: {code}"));
                Halt::Lane
            }
        }
    }

    /// A row of which nothing can be made stops its lane.
    fn halt_for(&mut self, lane: Lane, row: &PendingRow, reason: String) -> Halt {
        self.stop(lane, sent_row(row, usize::MAX, Kind::Event), reason);
        Halt::Lane
    }
}

impl LetterRecord<'_> {
    const fn content(&self) -> Content<'_> {
        Content {
            key: self.key,
            value: self.value,
            headers: Headers::Record(&self.headers),
        }
    }
}

/// The record of an event's row; or what is unusable about it.
fn event(row: &PendingRow) -> Result<Content<'_>, String> {
    let event_type = row.event_type.parse();
    let event_type = event_type.map_err(|_| format!("its type {} is unknown", row.event_type))?;
    let payload = row.payload.as_deref().ok_or("it has no payload")?;
    Ok(Content {
        key: Some(row.partition_key.as_bytes()),
        value: Some(payload.as_bytes()),
        headers: Headers::Event(EventEnvelope {
            id: EventId(row.event_id),
            event_type,
            time: row.created_at,
            account_id: AccountId(row.account_id),
        }),
    })
}

const fn sent_row(row: &PendingRow, topic: usize, kind: Kind) -> SentRow {
    SentRow {
        seq: row.seq,
        account_id: row.account_id,
        created_at: row.created_at,
        topic,
        kind,
    }
}
