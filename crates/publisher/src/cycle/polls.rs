use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// When all lanes are looked at, whether anybody told of rows in them or not: a hint may have been
/// lost. Looks are rare while hints come, and nothing but a look moves the next one further away.
#[derive(Debug)]
pub(super) struct Polls {
    backoff: Backoff,
    due: Instant,
}

impl Polls {
    /// The first is due now.
    pub(super) fn new(first: Duration, longest: Duration, now: Instant) -> Self {
        Self {
            backoff: Backoff::new(first, longest),
            due: now,
        }
    }

    /// When the next look is due.
    pub(super) const fn due_at(&self) -> Instant {
        self.due
    }

    /// Whether a look is due; if so, it counts as made, and the next is due after a longer pause.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let due = self.due <= now;
        if due {
            self.due = now + self.backoff.pause();
        }
        due
    }

    /// A look found rows and no hint had come since the one before: pauses begin anew.
    pub(super) fn no_hints_come(&mut self, now: Instant) {
        self.backoff.reset();
        self.due = self.due.min(now + self.backoff.pause());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    /// Polls after so many looks that pauses are longest, and the time of the last look.
    fn long_idle() -> (Polls, Instant) {
        let mut now = Instant::now();
        let mut polls = Polls::new(FIRST, LONGEST, now);
        for _ in 0..10 {
            now = polls.due_at();
            assert!(polls.begin(now));
        }
        (polls, now)
    }

    #[test]
    fn looks_become_rarer_up_to_the_longest_pause() {
        let now = Instant::now();
        let mut polls = Polls::new(FIRST, LONGEST, now);
        assert!(polls.begin(now), "the first is due at once");
        assert!(polls.due_at() <= now + FIRST);
        let (polls, last) = long_idle();
        assert!(polls.due_at() > last + FIRST);
        assert!(polls.due_at() <= last + LONGEST);
    }

    #[test]
    fn steps_between_two_looks_do_not_put_the_next_one_off() {
        let (mut polls, last) = long_idle();
        let due = polls.due_at();
        let mut now = last;
        while now < due {
            assert!(!polls.begin(now));
            now += FIRST;
        }
        assert_eq!(polls.due_at(), due);
        assert!(polls.begin(now));
    }

    #[test]
    fn looks_are_frequent_again_when_they_find_what_no_hint_told() {
        let (mut polls, last) = long_idle();
        polls.no_hints_come(last);
        assert!(polls.due_at() <= last + FIRST);
    }
}
