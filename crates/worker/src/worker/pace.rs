use std::time::{Duration, Instant};

/// What each event beside the first adds to the time from slice to slice: a crowd shares a transaction (one
/// costs 2 ms of CPU or more, however few events it has), and a lone event waits for nobody.
const PER_EVENT: Duration = Duration::from_micros(200);
/// So many of them add as much as the slice took, if that is more: who takes long, on a slow or busy machine,
/// has the most to gain from sharing.
const CROWD_EVENTS: u32 = 20;
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

    /// How long to pause behind a slice of so many events that took so long.
    pub(super) fn pause(&self, events: usize, took: Duration) -> Duration {
        if events >= self.slice_events_max {
            return Duration::ZERO;
        }
        let others = u32::try_from(events.saturating_sub(1)).unwrap_or(u32::MAX);
        let by_time = took.saturating_add(took.saturating_mul(others) / CROWD_EVENTS);
        let interval = PER_EVENT.saturating_mul(others).max(by_time);
        interval.min(INTERVAL_MAX).saturating_sub(took)
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

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lone_event_and_a_full_slice_are_waited_for_by_nobody() {
        let pace = Pace::new(500);
        for took in [MS, 10 * MS, 70 * MS] {
            assert_eq!(pace.pause(1, took), Duration::ZERO);
            assert_eq!(pace.pause(500, took), Duration::ZERO);
        }
    }

    #[test]
    fn a_crowd_waits_for_more_and_never_longer_than_the_limit() {
        let pace = Pace::new(500);
        assert_eq!(pace.pause(31, MS), 5 * MS);
        assert_eq!(pace.pause(101, MS), 19 * MS);
        assert_eq!(pace.pause(499, 2 * MS), 78 * MS);
        assert_eq!(pace.pause(499, 79 * MS), MS);
        assert_eq!(pace.pause(499, 10_000 * MS), Duration::ZERO);
    }

    #[test]
    fn the_longer_a_slice_takes_the_longer_a_crowd_waits() {
        let pace = Pace::new(500);
        assert_eq!(pace.pause(21, 8 * MS), 8 * MS);
        assert_eq!(pace.pause(21, 16 * MS), 16 * MS);
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
