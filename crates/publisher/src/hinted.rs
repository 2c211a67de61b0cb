//! Which lanes are worth a look: those whose rows somebody told of, until they were looked at.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::types::LaneSet;
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

#[cfg(test)]
pub(crate) mod tests {
    use common::types::Lane;

    use super::*;

    pub(crate) fn lane(number: i16) -> Lane {
        Lane::from_number(number).unwrap()
    }

    pub(crate) fn lanes(numbers: impl IntoIterator<Item = i16>) -> LaneSet {
        numbers.into_iter().map(lane).collect()
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
}
