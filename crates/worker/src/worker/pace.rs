use std::time::{Duration, Instant};

/// What each event of a slice adds to the time until the next slice may begin: a crowd shares a
/// transaction (one costs about 2 ms of CPU, however few events it has), and a lone event waits for
/// nobody.
const PER_EVENT: Duration = Duration::from_micros(200);
/// The longest time from slice to slice that is waited for the sake of a crowd.
const INTERVAL_MAX: Duration = Duration::from_millis(80);
/// How long a slice is left to settle while slices collide.
const SETTLE: Duration = Duration::from_millis(40);
/// How long after a collision slices are left to settle.
const SETTLE_FOR: Duration = Duration::from_secs(1);

/// When slices begin. A full slice never waits: behind it more is waiting.
#[derive(Debug)]
pub(super) struct Pace {
    slice_events_max: usize,
    last_collision: Option<Instant>,
}

impl Pace {
    pub(super) fn new(slice_events_max: u32) -> Self {
        Self {
            slice_events_max: usize::try_from(slice_events_max).unwrap_or(usize::MAX),
            last_collision: None,
        }
    }

    /// How long after the beginning of a slice of so many events the next may begin.
    pub(super) fn next_slice(&self, events: usize) -> Duration {
        if events >= self.slice_events_max {
            return Duration::ZERO;
        }
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        PER_EVENT.saturating_mul(events).min(INTERVAL_MAX)
    }

    /// How long to wait before a slice of so many events is applied.
    ///
    /// On a hot account each batch of the intake reads the account that the worker writes, and the
    /// worker reads the page of the primary key on which the youngest transactions stand, to which
    /// the intake writes: under SERIALIZABLE that is a cycle, and one of them fails. A few dozen
    /// milliseconds later the intake has gone on to other pages.
    pub(super) fn settles(&self, events: usize, now: Instant) -> Duration {
        let collides = self
            .last_collision
            .is_some_and(|at| now.saturating_duration_since(at) < SETTLE_FOR);
        if collides && events < self.slice_events_max {
            SETTLE
        } else {
            Duration::ZERO
        }
    }

    /// Notes that a slice collided with another transaction.
    pub(super) fn collided(&mut self, now: Instant) {
        self.last_collision = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_event_and_a_full_slice_are_waited_for_by_nobody() {
        let pace = Pace::new(500);
        assert!(pace.next_slice(1) < Duration::from_millis(1));
        assert_eq!(pace.next_slice(500), Duration::ZERO);
    }

    #[test]
    fn a_crowd_waits_for_more_and_never_longer_than_the_limit() {
        let pace = Pace::new(500);
        assert!(pace.next_slice(20) < pace.next_slice(100));
        for events in 0..500 {
            assert!(pace.next_slice(events) <= INTERVAL_MAX);
        }
    }

    #[test]
    fn slices_settle_for_a_while_after_a_collision_unless_they_are_full() {
        let mut pace = Pace::new(500);
        let now = Instant::now();
        assert_eq!(pace.settles(10, now), Duration::ZERO);
        pace.collided(now);
        assert_eq!(pace.settles(10, now), SETTLE);
        assert_eq!(pace.settles(500, now), Duration::ZERO);
        assert_eq!(pace.settles(10, now + SETTLE_FOR), Duration::ZERO);
    }
}
