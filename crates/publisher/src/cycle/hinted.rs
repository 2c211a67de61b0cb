//! Which lanes are worth a look: those whose rows somebody told of, until they were looked at.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::types::{Lane, LaneSet};
use tokio::sync::Notify;

/// The lanes that may have rows which nobody has looked for, shared between the cycle and all that
/// learn of such lanes.
///
/// A lane is taken off before the statement that looks at it begins, so that what is told meanwhile
/// is not forgotten. One that cannot be looked at (it has rows on their way, it is in trouble, it
/// is not ours) stays until it can be.
#[derive(Debug)]
pub(crate) struct Hinted {
    lanes: AtomicU64,
    /// Whether the database told of rows since that was last asked.
    heard: AtomicBool,
    wake: Notify,
}

impl Default for Hinted {
    /// All lanes: nobody has looked at any.
    fn default() -> Self {
        Self {
            lanes: AtomicU64::new(LaneSet::ALL.bits()),
            heard: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }
}

impl Hinted {
    /// Rows may have been written to these lanes; the cycle is woken.
    pub(crate) fn hint(&self, lanes: LaneSet) {
        self.keep(lanes);
        self.wake();
    }

    /// The database told of rows in these lanes; the cycle is woken.
    pub(crate) fn hear(&self, lanes: LaneSet) {
        self.heard.store(true, Ordering::Relaxed);
        self.hint(lanes);
    }

    /// These lanes are to be looked at by a step that comes anyway.
    pub(crate) fn keep(&self, lanes: LaneSet) {
        self.lanes.fetch_or(lanes.bits(), Ordering::AcqRel);
    }

    /// The lanes to look at.
    pub(crate) fn lanes(&self) -> LaneSet {
        LaneSet::from_bits(self.lanes.load(Ordering::Acquire))
    }

    /// These lanes are looked at from now on.
    pub(crate) fn take(&self, lanes: LaneSet) {
        self.lanes.fetch_and(!lanes.bits(), Ordering::AcqRel);
    }

    /// Whether the database told of rows since the last call.
    pub(crate) fn has_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// Wakes the cycle, for whatever reason.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for somebody to wake the cycle; what came since the last wait counts.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// What one claim saw of its lanes. Rows come lane by lane.
#[derive(Debug)]
pub(super) struct Sight {
    lanes: LaneSet,
    lane_rows_max: usize,
    rows_max: usize,
    rows: usize,
    /// The lane of the last row, and how many there were of it.
    last: Option<(Lane, usize)>,
    /// Lanes of which as many rows came as may.
    full: LaneSet,
    /// Lanes that came to their end before their last row.
    ended: LaneSet,
}

impl Sight {
    /// Of a claim of these lanes, bounded for each lane and in all.
    pub(super) const fn of(lanes: LaneSet, lane_rows_max: usize, rows_max: usize) -> Self {
        Self {
            lanes,
            lane_rows_max,
            rows_max,
            rows: 0,
            last: None,
            full: LaneSet::EMPTY,
            ended: LaneSet::EMPTY,
        }
    }

    /// A row of a lane came. Whether it is to be sent is the answer.
    pub(super) fn see(&mut self, lane: Lane) -> bool {
        let of_lane = match self.last {
            Some((last, rows)) if last == lane => rows + 1,
            _ => 1,
        };
        self.last = Some((lane, of_lane));
        self.rows += 1;
        if of_lane >= self.lane_rows_max {
            self.full.insert(lane);
        }
        !self.ended.contains(lane)
    }

    /// No more rows of these lanes are sent in this claim.
    pub(super) fn end(&mut self, lanes: LaneSet) {
        self.ended = self.ended.or(lanes);
    }

    /// Whether there was no row at all.
    pub(super) const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether as many rows came as may, and nothing kept one from being sent.
    pub(super) const fn filled_its_batch(&self) -> bool {
        self.rows >= self.rows_max && self.ended.is_empty()
    }

    /// The lanes in which more may wait than was sent: they are to be looked at again.
    pub(super) const fn left(&self) -> LaneSet {
        if self.rows >= self.rows_max {
            // Some were not even looked at.
            return self.lanes;
        }
        self.full.or(self.ended).and(self.lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(number: i16) -> Lane {
        Lane::from_number(number).unwrap()
    }

    fn lanes(numbers: impl IntoIterator<Item = i16>) -> LaneSet {
        numbers.into_iter().map(lane).collect()
    }

    /// A claim of lanes 1 to 3, at most 2 rows of each, at most 5 in all.
    fn sight() -> Sight {
        Sight::of(lanes([1, 2, 3]), 2, 5)
    }

    #[test]
    fn all_lanes_are_to_be_looked_at_in_the_beginning() {
        assert_eq!(Hinted::default().lanes(), LaneSet::ALL);
    }

    #[test]
    fn a_lane_stays_until_it_is_looked_at() {
        let hinted = Hinted::default();
        hinted.take(LaneSet::ALL);
        hinted.hint(lanes([1, 2]));
        hinted.take(lanes([2, 3]));
        assert_eq!(hinted.lanes(), lanes([1]));
    }

    #[tokio::test]
    async fn a_hint_before_the_wait_ends_it() {
        let hinted = Hinted::default();
        hinted.hint(lanes([2]));
        hinted.woken().await;
    }

    #[test]
    fn only_what_the_database_tells_is_heard() {
        let hinted = Hinted::default();
        hinted.hint(LaneSet::ALL);
        assert!(!hinted.has_heard());
        hinted.hear(lanes([2]));
        assert_eq!((hinted.has_heard(), hinted.has_heard()), (true, false));
    }

    #[test]
    fn a_lane_that_showed_all_its_rows_is_done() {
        let mut sight = sight();
        assert!(sight.is_empty());
        assert!(sight.see(lane(1)));
        assert!(sight.see(lane(3)));
        assert_eq!(sight.left(), LaneSet::EMPTY);
        assert!(!sight.is_empty());
    }

    #[test]
    fn a_lane_that_showed_as_many_rows_as_it_may_has_more() {
        let mut sight = sight();
        for number in [1, 2, 2, 3] {
            sight.see(lane(number));
        }
        assert_eq!(sight.left(), lanes([2]));
    }

    #[test]
    fn a_claim_that_came_to_its_limit_leaves_all_its_lanes() {
        let mut sight = sight();
        for number in [1, 1, 2, 2] {
            sight.see(lane(number));
        }
        assert!(!sight.filled_its_batch());
        sight.see(lane(3));
        assert!(sight.filled_its_batch());
        assert_eq!(sight.left(), lanes([1, 2, 3]));
    }

    #[test]
    fn a_lane_that_had_to_stop_sends_no_more_and_is_left() {
        let mut sight = sight();
        sight.see(lane(2));
        sight.end(lanes([2]));
        assert!(!sight.see(lane(2)));
        assert!(sight.see(lane(3)));
        assert_eq!(sight.left(), lanes([2]));
    }

    #[test]
    fn a_claim_that_had_to_stop_leaves_its_own_lanes_and_did_not_fill_its_batch() {
        let mut sight = sight();
        sight.end(LaneSet::ALL);
        for number in [1, 1, 2, 2] {
            assert!(!sight.see(lane(number)));
        }
        assert_eq!(sight.left(), lanes([1, 2, 3]));
        sight.see(lane(3));
        assert!(!sight.filled_its_batch());
    }
}
