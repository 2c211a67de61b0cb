use chrono::{DateTime, Utc};
use common::types::{Lane, LaneSet};
use tokio::time::Instant;
use uuid::Uuid;

use super::letter::Form;

/// How many rows a flight may have: the low bits of a slot count them.
const SLOT_BITS: u32 = 16;

/// Which courier carries a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// With the rows of the other lanes.
    Main,
    /// Alone, to find the row that is refused.
    Probe,
}

/// What a row's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event, or a dead letter's record that is sent again to where it came from.
    Event,
    /// A dead letter, and how much of it.
    Letter(Form),
}

/// A row that was sent and has no report yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentRow {
    pub(super) seq: i64,
    pub(super) account_id: Uuid,
    pub(super) created_at: DateTime<Utc>,
    pub(super) topic: usize,
    pub(super) kind: Kind,
}

/// A lane's rows that are on their way together.
#[derive(Debug)]
struct Flight {
    route: Route,
    rows: Vec<SentRow>,
    outstanding: usize,
    /// When its first row was sent.
    since: Instant,
}

/// The rows on their way, by lane. A lane has one flight at most: it is claimed again only when all
/// of its rows were reported and those that arrived are marked.
#[derive(Debug)]
pub(super) struct Flights {
    by_lane: Vec<Flight>,
    outstanding: usize,
}

impl Flights {
    pub(super) fn new() -> Self {
        let flight = || Flight {
            route: Route::Main,
            rows: Vec::new(),
            outstanding: 0,
            since: Instant::now(),
        };
        Self {
            by_lane: Lane::all().map(|_| flight()).collect(),
            outstanding: 0,
        }
    }

    /// Adds a row to its lane's flight; the answer is the slot that names it in its report.
    pub(super) fn add(&mut self, lane: Lane, route: Route, row: SentRow, now: Instant) -> usize {
        let flight = &mut self.by_lane[index(lane)];
        if flight.outstanding == 0 {
            flight.rows.clear();
            flight.route = route;
            flight.since = now;
        }
        flight.rows.push(row);
        flight.outstanding += 1;
        self.outstanding += 1;
        (index(lane) << SLOT_BITS) | (flight.rows.len() - 1)
    }

    /// Takes back the row added last, which was not sent after all.
    pub(super) fn take_back(&mut self, lane: Lane) {
        let flight = &mut self.by_lane[index(lane)];
        flight.rows.pop();
        flight.outstanding -= 1;
        self.outstanding -= 1;
    }

    /// Finds the row a report is about, which from now on is not outstanding.
    pub(super) fn land(&mut self, slot: usize) -> Option<(Lane, SentRow)> {
        let lane = i16::try_from(slot >> SLOT_BITS).ok()?;
        let lane = Lane::from_number(lane)?;
        let flight = &mut self.by_lane[index(lane)];
        let row = *flight.rows.get(slot & ((1 << SLOT_BITS) - 1))?;
        flight.outstanding = flight.outstanding.checked_sub(1)?;
        self.outstanding -= 1;
        Some((lane, row))
    }

    /// Gives up on the reports of a courier that will never come. The answer is the lanes whose
    /// rows they were about.
    pub(super) fn abandon(&mut self, route: Route) -> LaneSet {
        let mut abandoned = LaneSet::EMPTY;
        for (lane, flight) in Lane::all().zip(&mut self.by_lane) {
            if flight.route == route && flight.outstanding > 0 {
                self.outstanding -= flight.outstanding;
                flight.outstanding = 0;
                abandoned.insert(lane);
            }
        }
        abandoned
    }

    /// Whether a lane has a row of this topic on its way.
    pub(super) fn has_topic(&self, lane: Lane, topic: usize) -> bool {
        let flight = &self.by_lane[index(lane)];
        flight.outstanding > 0 && flight.rows.iter().any(|row| row.topic == topic)
    }

    /// How many rows have no report yet.
    pub(super) const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// When the oldest flight left that has rows without a report.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let flying = self.by_lane.iter().filter(|flight| flight.outstanding > 0);
        flying.map(|flight| flight.since).min()
    }

    /// How many of one courier's rows have no report yet.
    pub(super) fn outstanding_on(&self, route: Route) -> usize {
        let of_route = self.by_lane.iter().filter(|flight| flight.route == route);
        of_route.map(|flight| flight.outstanding).sum()
    }

    /// The lanes that have rows on their way.
    pub(super) fn lanes(&self) -> LaneSet {
        Lane::all()
            .filter(|lane| self.by_lane[index(*lane)].outstanding > 0)
            .collect()
    }
}

fn index(lane: Lane) -> usize {
    usize::try_from(lane.number()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(seq: i64) -> SentRow {
        SentRow {
            seq,
            account_id: Uuid::nil(),
            created_at: DateTime::UNIX_EPOCH,
            topic: 0,
            kind: Kind::Event,
        }
    }

    #[test]
    fn each_report_finds_its_row() {
        let mut flights = Flights::new();
        let lanes: Vec<Lane> = Lane::all().collect();
        let slots: Vec<(Lane, i64, usize)> = (0..200)
            .map(|seq| {
                let lane = lanes[usize::try_from(seq).unwrap() % 64];
                (
                    lane,
                    seq,
                    flights.add(lane, Route::Main, row(seq), Instant::now()),
                )
            })
            .collect();
        assert_eq!(flights.outstanding(), 200);
        assert_eq!(flights.lanes(), LaneSet::ALL);
        for (lane, seq, slot) in slots.into_iter().rev() {
            let (landed, row) = flights.land(slot).unwrap();
            assert_eq!((landed, row.seq), (lane, seq));
        }
        assert_eq!(flights.outstanding(), 0);
        assert!(flights.lanes().is_empty());
    }

    #[test]
    fn a_row_that_was_not_sent_leaves_no_trace() {
        let mut flights = Flights::new();
        let lane = Lane::from_number(5).unwrap();
        flights.add(lane, Route::Main, row(1), Instant::now());
        flights.take_back(lane);
        assert!(flights.lanes().is_empty());
        assert!(!flights.has_topic(lane, 0));
    }

    #[test]
    fn an_abandoned_courier_leaves_the_other_alone() {
        let mut flights = Flights::new();
        let (main, probe) = (Lane::from_number(1).unwrap(), Lane::from_number(2).unwrap());
        flights.add(main, Route::Main, row(1), Instant::now());
        let slot = flights.add(probe, Route::Probe, row(2), Instant::now());
        assert_eq!(flights.abandon(Route::Main), [main].into_iter().collect());
        assert_eq!(flights.outstanding(), 1);
        assert_eq!(flights.outstanding_on(Route::Main), 0);
        assert_eq!(flights.land(slot).unwrap().1.seq, 2);
    }

    #[test]
    fn the_oldest_flight_is_the_one_that_left_first_and_has_rows_without_report() {
        let (first, second) = (Lane::from_number(1).unwrap(), Lane::from_number(2).unwrap());
        let (start, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let mut flights = Flights::new();
        assert_eq!(flights.oldest(), None);
        let slot = flights.add(first, Route::Main, row(1), start);
        flights.add(second, Route::Main, row(2), later);
        flights.add(second, Route::Main, row(3), later + Duration::from_secs(1));
        assert_eq!(flights.oldest(), Some(start));
        flights.land(slot);
        assert_eq!(flights.oldest(), Some(later));
    }
}
