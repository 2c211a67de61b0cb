use std::time::{Duration, Instant};

/// Behind a slice comes a pause as long as the slice took, once for so many events of it: a crowd shares a
/// transaction (one costs 2 ms of CPU or more, however few events it has), a slow or busy machine has the
/// most to gain from that, and a lone event waits for nobody.
const CROWD_EVENTS: u32 = 10;
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
    slice_began: Option<Instant>,
    last_collision: Option<Instant>,
}

impl Pace {
    pub(super) fn new(slice_events_max: u32) -> Self {
        Self {
            slice_events_max: usize::try_from(slice_events_max).unwrap_or(usize::MAX),
            slice_began: None,
            last_collision: None,
        }
    }

    /// Notes that a slice begins.
    pub(super) fn slice_begins(&mut self, now: Instant) {
        self.slice_began = Some(now);
    }

    /// How long to pause behind a slice of so many events that ends now.
    pub(super) fn pause(&self, events: usize, now: Instant) -> Duration {
        if events >= self.slice_events_max {
            return Duration::ZERO;
        }
        let took = self
            .slice_began
            .map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let pause = took.saturating_mul(events) / CROWD_EVENTS;
        pause.min(INTERVAL_MAX.saturating_sub(took))
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

    /// The pause behind a slice of so many events that took so many milliseconds.
    fn pause(events: usize, took: u64) -> Duration {
        let mut pace = Pace::new(500);
        let now = Instant::now();
        pace.slice_begins(now);
        pace.pause(events, now + Duration::from_millis(took))
    }

    #[test]
    fn a_lone_event_and_a_full_slice_are_waited_for_by_nobody() {
        assert!(pause(1, 5) < Duration::from_millis(1));
        assert_eq!(pause(500, 5), Duration::ZERO);
    }

    #[test]
    fn a_crowd_waits_for_more_and_never_longer_than_the_limit() {
        assert!(pause(20, 2) < pause(100, 2));
        for (events, took) in [(100, 2), (499, 2), (499, 79), (20, 10_000)] {
            let interval = pause(events, took) + Duration::from_millis(took);
            assert!(interval <= INTERVAL_MAX.max(Duration::from_millis(took)));
        }
    }

    #[test]
    fn the_longer_a_slice_takes_the_longer_a_crowd_waits() {
        assert_eq!(pause(10, 2), Duration::from_millis(2));
        assert_eq!(pause(10, 6), Duration::from_millis(6));
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
