use std::time::Duration;

/// When the requests of a constant rate are due, counted from the start of the load.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    per_second: u32,
    lasts: Duration,
}

impl Schedule {
    /// So many requests a second for so long.
    #[must_use]
    pub fn new(per_second: u32, lasts: Duration) -> Self {
        Self { per_second, lasts }
    }

    /// Requests a second.
    #[must_use]
    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// How long the load lasts.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        self.lasts
    }

    /// How many requests there are in all.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.due_by(self.lasts)
    }

    /// How many requests are due before a time; from the load's end on, all.
    #[must_use]
    pub fn due_by(&self, time: Duration) -> u64 {
        let nanos = time.min(self.lasts).as_nanos() * u128::from(self.per_second);
        u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// When a request is due; the first has number 0.
    #[must_use]
    pub fn due(&self, number: u64) -> Duration {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_spread_evenly_over_the_time() {
        let schedule = Schedule::new(15_000, Duration::from_secs(20));
        assert_eq!(schedule.requests(), 300_000);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(15_000), Duration::from_secs(1));
        assert!(schedule.due(schedule.requests() - 1) < schedule.lasts());
        assert_eq!(schedule.due_by(Duration::from_secs(3)), 45_000);
        assert_eq!(schedule.due_by(Duration::from_mins(1)), 300_000);
    }

    #[test]
    fn a_rate_that_divides_no_second_does_not_drift() {
        let schedule = Schedule::new(7, Duration::from_secs(1_000));
        assert_eq!(schedule.due(7_000), Duration::from_secs(1_000));
        assert_eq!(schedule.requests(), 7_000);
    }
}
