//! The way out: rows of free lanes are selected and sent.

use std::pin::pin;

use common::types::{Lane, LaneSet};
use futures_util::TryStreamExt;
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Cycle, Outcome,
    flights::Route,
    letter::Letter,
    send::Halt,
    sight::Sight,
    sql::{self, PendingRow},
};

/// The part of all rows under way that must be free before it is worth looking for more.
const ROOM_PARTS: usize = 8;

/// Most dead letters in one claim: it bounds how many bytes come from the database in the time of
/// one answer, since a letter may be as large as any record.
const LETTERS_MAX: usize = 64;

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
        #[cfg(feature = "faults")]
        mutant::claims(owned, Instant::now());
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
            let letters = {
                let rows = sql::pending(connection, &numbers, lane_rows_max.into(), rows_max);
                let mut rows = pin!(rows);
                let mut letters = Vec::new();
                while let Some(row) = rows.try_next().await? {
                    self.send_unless_ended(&mut sight, &mut letters, row);
                }
                letters
            };
            let halted = self.send_letters(connection, &letters, Route::Main).await?;
            sight.end(halted);
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

    /// Sends a row, unless its lane has come to its end for this claim. One that names a dead letter
    /// is put aside, to be sent behind all the others; in its lane only more of these may follow.
    fn send_unless_ended(
        &mut self,
        sight: &mut Sight,
        letters: &mut Vec<PendingRow>,
        row: PendingRow,
    ) {
        let Some(lane) = Lane::from_number(row.lane) else {
            return;
        };
        #[cfg(feature = "faults")]
        if mutant::leaves_out(lane, row.seq) {
            return;
        }
        if !sight.see(lane) {
            return;
        }
        self.first_lane = row.lane;
        let follows_letter = letters.last().is_some_and(|last| last.lane == row.lane);
        if row.dead_letter_id.is_some() && letters.len() < LETTERS_MAX {
            letters.push(row);
        } else if row.dead_letter_id.is_some() || follows_letter {
            sight.end(LaneSet::from_iter([lane]));
        } else {
            let sent = self.send(lane, &row, Route::Main);
            sight.end(self.note_sent(lane, sent));
        }
    }

    /// Notes what became of a row; the answer is the lanes that sending stops for.
    fn note_sent(&mut self, lane: Lane, sent: Result<(), Halt>) -> LaneSet {
        match sent {
            Ok(()) => {
                self.rows_sent.add(lane);
                LaneSet::EMPTY
            }
            Err(Halt::Lane) => LaneSet::from_iter([lane]),
            Err(Halt::All) => LaneSet::ALL,
        }
    }

    /// Sends rows that name dead letters, in this order, as their letters come from the database. The
    /// answer is the lanes that sending stopped for.
    async fn send_letters(
        &mut self,
        connection: &mut PgConnection,
        rows: &[PendingRow],
        route: Route,
    ) -> Result<LaneSet, sqlx::Error> {
        let mut halted = LaneSet::EMPTY;
        if rows.is_empty() {
            return Ok(halted);
        }
        let ids: Vec<Uuid> = rows.iter().filter_map(|row| row.dead_letter_id).collect();
        let account_ids: Vec<Uuid> = rows.iter().map(|row| row.account_id).collect();
        let mut letters = pin!(sql::letters(connection, &ids, &account_ids));
        let mut rows = (1..).zip(rows);
        while halted != LaneSet::ALL
            && let Some(letter) = letters.try_next().await?
        {
            for (position, row) in rows.by_ref() {
                let found = (position == letter.position).then_some(&letter);
                self.send_letter_unless_halted(&mut halted, row, found, route);
                if found.is_some() {
                    break;
                }
            }
        }
        for (_, row) in rows {
            self.send_letter_unless_halted(&mut halted, row, None, route);
        }
        Ok(halted)
    }

    fn send_letter_unless_halted(
        &mut self,
        halted: &mut LaneSet,
        row: &PendingRow,
        letter: Option<&Letter>,
        route: Route,
    ) {
        let lane = Lane::from_number(row.lane);
        if let Some(lane) = lane.filter(|lane| !halted.contains(*lane)) {
            let sent = self.send_letter(lane, row, letter, route);
            *halted = halted.or(self.note_sent(lane, sent));
        }
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
        self.send_first(lane).await
    }

    /// Sends the first row of a lane in trouble, if it is one of those to be sent alone.
    async fn send_first(&mut self, lane: Lane) -> Result<(), sqlx::Error> {
        let database = self.parts.database.clone();
        let lanes = [lane.number()];
        let sent = database.run(async |connection| {
            let rows = sql::pending(connection, &lanes, 1, 1);
            let first = rows.try_collect::<Vec<PendingRow>>().await?.pop();
            let Some(row) = first.filter(|row| Some(row.seq) <= self.troubles.until_seq(lane))
            else {
                return Ok(false);
            };
            // A refusal is told by its own means, and any other halt means: later.
            if row.dead_letter_id.is_none() {
                let _ = self.send(lane, &row, Route::Probe);
            } else {
                self.send_letters(connection, &[row], Route::Probe).await?;
            }
            Ok(true)
        });
        if !sent.await? {
            self.troubles.over(lane);
            // It may have rows like any other, and it is free only behind this step.
            self.parts.hinted.hint(LaneSet::from_iter([lane]));
        }
        Ok(())
    }
}

/// A rule broken on purpose, in builds for the fault suite alone: the mutant goes on with lanes that it
/// lost, and leaves a gap in them.
#[cfg(feature = "faults")]
mod mutant {
    use std::{
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    use common::{
        faults::{Mutation, mutated},
        types::{Lane, LaneSet},
    };
    use tokio::time::Instant;

    /// A process that claimed nothing for so long was frozen, and the server has closed its lock session
    /// meanwhile (`idle_session_timeout`). One that runs claims every second at least.
    const FROZEN: Duration = Duration::from_secs(5);
    /// Every so many rows of a lost lane, one is left to its new owner.
    const LEFT_OUT_EVERY: i64 = 20;

    /// When lanes were claimed last, and those that were owned when the process froze.
    static STATE: Mutex<(Option<Instant>, LaneSet)> = Mutex::new((None, LaneSet::EMPTY));

    /// Lanes are claimed from among these, which the mutant takes for its own.
    pub(super) fn claims(owned: LaneSet, now: Instant) {
        if !mutated(Mutation::KeepLostLane) {
            return;
        }
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        let (claimed_at, lost) = &mut *state;
        if claimed_at.is_some_and(|before| before + FROZEN < now) {
            *lost = lost.or(owned);
        }
        *claimed_at = Some(now);
    }

    /// Whether a row is left out, so that younger ones pass it.
    pub(super) fn leaves_out(lane: Lane, seq: i64) -> bool {
        let state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        seq % LEFT_OUT_EVERY == 0 && state.1.contains(lane)
    }
}
