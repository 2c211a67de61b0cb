use std::time::Duration;

use common::types::Lane;

/// The shortest time between two steps that did not fill their batch: a lone row after a pause still
/// goes at once.
const STEP_INTERVAL_MIN: Duration = Duration::from_millis(5);
/// What each row sent adds to it: a crowd shares statements and requests to the broker, and the
/// larger the crowd, the more there is to share.
const STEP_INTERVAL_PER_ROW: Duration = Duration::from_micros(50);
/// The longest time between two such steps.
const STEP_INTERVAL_MAX: Duration = Duration::from_millis(40);

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

    /// How long after its beginning the step is followed by the next. A lane that sent as much as it
    /// may has more waiting, and nothing is shared by letting it wait.
    pub(super) fn step_interval(&self, lane_rows_max: u16) -> Duration {
        if self.of_largest_lane >= u32::from(lane_rows_max) {
            return STEP_INTERVAL_MIN;
        }
        let crowd = STEP_INTERVAL_PER_ROW.saturating_mul(self.all);
        (STEP_INTERVAL_MIN + crowd).min(STEP_INTERVAL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let interval = |by_lane: &[u32]| sent(by_lane).step_interval(500);
        assert_eq!(interval(&[]), STEP_INTERVAL_MIN);
        assert!(interval(&[1]) < interval(&[100, 100]));
        assert_eq!(interval(&[499, 499, 499]), STEP_INTERVAL_MAX);
    }

    #[test]
    fn a_lane_that_sent_all_it_may_goes_on_at_once() {
        assert_eq!(sent(&[3, 500, 4]).step_interval(500), STEP_INTERVAL_MIN);
        // Not because of what all lanes sent together.
        assert_eq!(
            sent(&[300, 300]).step_interval(500),
            Duration::from_millis(35)
        );
    }
}
