use std::time::Duration;

use common::types::Lane;

/// The shortest time between two steps: a lone row behind another one's result is not held up.
const STEP_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// What each of a few rows adds up to: there is no jump between lone rows and a crowd, so that no
/// rate of rows makes steps of both kinds in turn.
const STEP_INTERVAL_PER_LONE_ROW: Duration = Duration::from_micros(600);
/// Between two steps that sent a crowd, but did not fill their batch, and after a full lane.
const STEP_INTERVAL_CROWD: Duration = Duration::from_millis(5);
/// What each row of a crowd adds to it: it shares statements and requests to the broker, and the
/// larger the crowd, the more there is to share.
const STEP_INTERVAL_PER_ROW: Duration = Duration::from_micros(50);
/// So many rows beside the first add as much to the time between two steps as the step took, if that is more:
/// who takes long, on a slow or busy machine, has the most to gain from sharing. (A transaction has two rows,
/// its own and its result's.)
const CROWD_ROWS: u32 = 40;
/// The longest time between two such steps.
const STEP_INTERVAL_MAX: Duration = Duration::from_millis(80);

/// How many rows a step sent: in all, and of the lane that sent most.
#[derive(Debug, Default)]
pub(super) struct RowsSent {
    all: u32,
    of_lane: u32,
    of_largest_lane: u32,
    lane: Option<Lane>,
}

impl RowsSent {
    /// Rows come lane by lane.
    pub(super) fn add(&mut self, lane: Lane) {
        if self.lane.replace(lane) != Some(lane) {
            self.of_lane = 0;
        }
        self.all += 1;
        self.of_lane += 1;
        self.of_largest_lane = self.of_largest_lane.max(self.of_lane);
    }

    /// Whether there were any.
    pub(super) const fn any(&self) -> bool {
        self.all > 0
    }

    /// How long after its beginning the step, which took so long, is followed by the next. A lane that
    /// sent as much as it may has more waiting, and nothing is shared by letting it wait.
    pub(super) fn step_interval(&self, lane_rows_max: u16, took: Duration) -> Duration {
        if self.of_largest_lane >= u32::from(lane_rows_max) {
            return STEP_INTERVAL_CROWD;
        }
        let few = STEP_INTERVAL_PER_LONE_ROW.saturating_mul(self.all);
        let crowd = STEP_INTERVAL_CROWD + STEP_INTERVAL_PER_ROW.saturating_mul(self.all);
        let others = self.all.saturating_sub(1);
        let by_time = took.saturating_add(took.saturating_mul(others) / CROWD_ROWS);
        few.min(crowd)
            .max(by_time)
            .clamp(STEP_INTERVAL_MIN, STEP_INTERVAL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a step takes on a fast machine without much to do.
    const QUICK: Duration = Duration::from_micros(500);

    /// What is sent by lanes that send so many rows each.
    fn sent(by_lane: &[u32]) -> RowsSent {
        let mut sent = RowsSent::default();
        for (lane, rows) in Lane::all().zip(by_lane) {
            (0..*rows).for_each(|_| sent.add(lane));
        }
        sent
    }

    #[test]
    fn a_crowd_waits_for_more_and_never_longer_than_the_limit() {
        let interval = |by_lane: &[u32]| sent(by_lane).step_interval(500, QUICK);
        assert!(interval(&[1]) < interval(&[5]));
        assert!(interval(&[5]) < STEP_INTERVAL_CROWD);
        assert!(interval(&[10]) > STEP_INTERVAL_CROWD);
        assert!(interval(&[10]) < interval(&[100, 100]));
        assert_eq!(interval(&[499; 5]), STEP_INTERVAL_MAX);
    }

    #[test]
    fn a_lone_row_holds_up_the_next_as_little_as_a_report_does() {
        assert_eq!(sent(&[]).step_interval(500, QUICK), STEP_INTERVAL_MIN);
        assert_eq!(sent(&[0, 1]).step_interval(500, QUICK), STEP_INTERVAL_MIN);
    }

    #[test]
    fn the_interval_grows_with_the_rows_without_a_jump() {
        for rows in 0..300 {
            let interval = |rows| sent(&[rows]).step_interval(500, QUICK);
            let more = interval(rows + 1).checked_sub(interval(rows));
            assert!(
                more.is_some_and(|more| more <= STEP_INTERVAL_PER_LONE_ROW),
                "{rows}"
            );
        }
    }

    #[test]
    fn a_lane_that_sent_all_it_may_goes_on_at_once() {
        assert_eq!(
            sent(&[3, 500, 4]).step_interval(500, QUICK),
            STEP_INTERVAL_CROWD
        );
        // Not because of what all lanes sent together.
        assert_eq!(
            sent(&[300, 300]).step_interval(500, QUICK),
            Duration::from_millis(35)
        );
    }

    #[test]
    fn the_longer_a_step_takes_the_longer_a_crowd_waits() {
        let interval = |rows, took| sent(&[rows]).step_interval(500, Duration::from_millis(took));
        assert_eq!(interval(21, 1), Duration::from_micros(6_050));
        assert_eq!(interval(21, 10), Duration::from_millis(15));
        assert_eq!(interval(21, 20), Duration::from_millis(30));
        assert_eq!(interval(401, 10), STEP_INTERVAL_MAX);
    }

    #[test]
    fn nobody_waits_for_a_lone_row_or_behind_a_full_lane_however_long_the_step_took() {
        let took = Duration::from_millis(30);
        assert_eq!(sent(&[1]).step_interval(500, took), took);
        assert_eq!(sent(&[500]).step_interval(500, took), STEP_INTERVAL_CROWD);
    }
}
