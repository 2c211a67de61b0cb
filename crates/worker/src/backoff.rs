//! How long to wait before the next attempt.

use std::time::Duration;

/// Exponential, bounded, with full jitter (Brooker, "Exponential Backoff and Jitter", 2015): two
/// workers that collided do not collide again at the same instant.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// After two transactions collided: whoever won is done in milliseconds.
    pub const COLLISION: Self = Self {
        first: Duration::from_millis(4),
        most: Duration::from_millis(200),
    };

    /// While something the worker needs is away: soon enough that nobody notices the return.
    pub const AWAY: Self = Self {
        first: Duration::from_millis(50),
        most: Duration::from_secs(1),
    };

    /// While somebody has to mend something: soon enough behind the mending.
    pub const MENDING: Self = Self {
        first: Duration::from_secs(1),
        most: Duration::from_secs(15),
    };

    /// Pauses between these two.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most }
    }

    /// The pause behind an attempt (from 1), for a `jitter` between 0 and 1.
    #[must_use]
    pub fn pause(self, attempt: u32, jitter: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let pause = self.first.saturating_mul(1_u32 << doublings).min(self.most);
        pause.mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most() {
        let pause = |attempt| Backoff::AWAY.pause(attempt, 1.0).as_millis();
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 99].map(pause),
            [50, 100, 200, 400, 800, 1000, 1000]
        );
        assert_eq!(pause(u32::MAX), 1000);
    }

    #[test]
    fn jitter_takes_any_part_of_a_pause() {
        assert_eq!(Backoff::AWAY.pause(3, 0.5), Duration::from_millis(100));
        assert_eq!(Backoff::AWAY.pause(3, 0.0), Duration::ZERO);
    }
}
