//! The way out: rows of free lanes are selected and sent.

use std::pin::pin;

use common::types::{AccountId, EventEnvelope, EventId, EventType, Lane, LaneSet};
use futures_util::TryStreamExt;
use tokio::time::Instant;

use super::{
    Cycle, Outcome,
    flights::{Route, SentRow},
    sight::Sight,
    sql::{self, PendingRow},
};
use crate::courier::{NotSent, Parcel, Verdict};

/// The part of all rows under way that must be free before it is worth looking for more.
const ROOM_PARTS: usize = 8;

/// Why sending stops.
#[derive(Clone, Copy, Debug)]
enum Halt {
    /// For this lane, in this claim.
    Lane,
    /// For all lanes, in this claim.
    All,
}

impl Cycle {
    /// Sends what those of the free lanes have that are to be looked at, and the next row of a lane
    /// in trouble.
    pub(super) async fn claim(&mut self, message_bytes_max: i32) -> Result<Outcome, sqlx::Error> {
        let probed = self.probe(message_bytes_max).await;
        let sent = match probed {
            Ok(()) => self.claim_free_lanes(message_bytes_max).await,
            Err(error) => Err(error),
        };
        // Whatever happened, exactly the lanes with rows on their way are busy now.
        self.parts.ownership.set_busy(self.flights.lanes());
        sent
    }

    async fn claim_free_lanes(&mut self, limit: i32) -> Result<Outcome, sqlx::Error> {
        let rows_max = usize::try_from(self.settings.publish_rows_max).unwrap_or(usize::MAX);
        let under_way = self.flights.outstanding();
        let room = rows_max.saturating_sub(under_way);
        if room < rows_max / ROOM_PARTS || self.couriers.open(Route::Main, limit).is_none() {
            return Ok(Outcome::Idle);
        }
        let owned = self.parts.ownership.owned();
        let healthy = owned.without(self.troubles.lanes());
        let wanted = self.parts.hinted.lanes().and(healthy);
        let lanes = self.parts.ownership.begin_claim(wanted, Instant::now());
        let sent = if lanes.is_empty() {
            Outcome::Idle
        } else {
            self.send_pending(lanes, room).await?
        };
        if sent == Outcome::Idle && under_way == 0 && wanted == healthy {
            let answered_at = *self.parts.broker_answered.borrow();
            self.couriers.nothing_waits(answered_at);
        }
        Ok(sent)
    }

    /// Selects and sends in one go: rows are handed on as they come and never held all at once.
    async fn send_pending(&mut self, lanes: LaneSet, room: usize) -> Result<Outcome, sqlx::Error> {
        let numbers = self.rotated(lanes);
        let lane_rows_max = self.settings.publish_lane_rows_max;
        let rows_max = i64::try_from(room).unwrap_or(i64::MAX);
        let database = self.parts.database.clone();
        let mut sight = Sight::of(lanes, usize::from(lane_rows_max), room);
        self.parts.hinted.take(lanes);
        // What was handed over before the time is up is on its way, as its flights know.
        let claimed = database.run(async |connection| {
            let rows = sql::pending(connection, &numbers, lane_rows_max.into(), rows_max);
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await? {
                self.send_unless_ended(&mut sight, &row);
            }
            Ok(())
        });
        let claimed = claimed.await;
        let left = claimed.as_ref().map_or(lanes, |()| sight.left());
        self.parts.hinted.keep(left);
        claimed?;
        Ok(if sight.is_empty() {
            Outcome::Idle
        } else if sight.filled_its_batch() {
            Outcome::Full
        } else {
            // If a lane or all had to stop, looking again at once would find the same rows.
            Outcome::Moved
        })
    }

    /// Sends a row, unless its lane has come to its end for this claim.
    fn send_unless_ended(&mut self, sight: &mut Sight, row: &PendingRow) {
        let Some(lane) = Lane::from_number(row.lane) else {
            return;
        };
        if !sight.see(lane) {
            return;
        }
        match self.send(lane, row, Route::Main) {
            Ok(()) => self.rows_sent.add(lane),
            Err(Halt::Lane) => sight.end(LaneSet::from_iter([lane])),
            Err(Halt::All) => sight.end(LaneSet::ALL),
        }
        self.first_lane = row.lane;
    }

    /// The lanes' numbers, beginning where the last claim ended.
    fn rotated(&self, lanes: LaneSet) -> Vec<i16> {
        let mut numbers: Vec<i16> = lanes.iter().map(Lane::number).collect();
        let first = numbers.partition_point(|number| *number < self.first_lane);
        numbers.rotate_left(first);
        numbers
    }

    /// Sends the first row of a lane in trouble, alone. At most one such row is on its way.
    async fn probe(&mut self, limit: i32) -> Result<(), sqlx::Error> {
        if self.flights.outstanding_on(Route::Probe) > 0 {
            return Ok(());
        }
        let now = Instant::now();
        let Some(lane) = self.troubles.next_due(now) else {
            if self.troubles.lanes().is_empty() {
                self.couriers.dismiss(Route::Probe);
            }
            return Ok(());
        };
        if self.couriers.open(Route::Probe, limit).is_none() {
            return Ok(());
        }
        let claimed = self
            .parts
            .ownership
            .begin_claim([lane].into_iter().collect(), now);
        if claimed.is_empty() {
            return Ok(());
        }
        let lanes = [lane.number()];
        let first = self.parts.database.run(async |connection| {
            let rows = sql::pending(connection, &lanes, 1, 1);
            rows.try_collect::<Vec<PendingRow>>().await
        });
        let first = first.await?.pop();
        if let Some(row) = first.filter(|row| Some(row.seq) <= self.troubles.until_seq(lane)) {
            // A refusal is told by its own means, and any other halt means: later.
            let _ = self.send(lane, &row, Route::Probe);
        } else {
            self.troubles.over(lane);
            // It may have rows like any other, and it is free only behind this step.
            self.parts.hinted.hint(LaneSet::from_iter([lane]));
        }
        Ok(())
    }

    fn send(&mut self, lane: Lane, row: &PendingRow, route: Route) -> Result<(), Halt> {
        let mut sent = SentRow {
            seq: row.seq,
            account_id: row.account_id,
            created_at: row.created_at,
            topic: usize::MAX,
        };
        let (topic, event_type) = match self.address(row) {
            Ok(address) => address,
            Err(reason) => {
                self.refuse(lane, sent, reason);
                return Err(Halt::Lane);
            }
        };
        sent.topic = topic;
        self.hand_over(lane, row, sent, event_type, route)
    }

    /// Where a row goes and as what; or what is unusable about it.
    fn address(&self, row: &PendingRow) -> Result<(usize, EventType), String> {
        let topic = self.topics.iter().position(|topic| *topic == row.topic);
        let topic = topic.ok_or_else(|| {
            let topics = self.topics.join(" nor ");
            format!("its topic {} is neither {topics}", row.topic)
        })?;
        let event_type = row.event_type.parse();
        let event_type =
            event_type.map_err(|_| format!("its type {} is unknown", row.event_type))?;
        Ok((topic, event_type))
    }

    fn hand_over(
        &mut self,
        lane: Lane,
        row: &PendingRow,
        sent: SentRow,
        event_type: EventType,
        route: Route,
    ) -> Result<(), Halt> {
        let partition = lane.partition(self.partitions);
        let now = Instant::now();
        let courier = self.couriers.present(route).ok_or(Halt::All)?;
        if courier.has_failed() {
            return Err(Halt::All);
        }
        // The first row of a lane to a partition goes alone until the broker knows the producer.
        if self.flights.has_topic(lane, sent.topic) && !courier.is_known(sent.topic, partition, now)
        {
            return Err(Halt::Lane);
        }
        let parcel = Parcel {
            slot: self.flights.add(lane, route, sent, now),
            topic: &self.topics[sent.topic],
            partition,
            key: &row.partition_key,
            payload: &row.payload,
            envelope: EventEnvelope {
                id: EventId(row.event_id),
                event_type,
                time: row.created_at,
                account_id: AccountId(row.account_id),
            },
        };
        let Err(not_sent) = courier.send(&parcel) else {
            return Ok(());
        };
        self.flights.take_back(lane);
        Err(self.halt(lane, sent, not_sent))
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
                self.refuse(lane, row, format!("it cannot be sent: {code}"));
                Halt::Lane
            }
        }
    }
}
