use common::types::{Lane, LaneSet};

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
    use crate::hinted::tests::{lane, lanes};

    /// A claim of lanes 1 to 3, at most 2 rows of each, at most 5 in all.
    fn sight() -> Sight {
        Sight::of(lanes([1, 2, 3]), 2, 5)
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
