use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{
    faults::{Mutation, mutated},
    types::{LANES, Lane, LaneSet},
};
use tokio::time::Instant;

/// How long the server keeps a lock session that says nothing (`idle_session_timeout`), and so how
/// long after its last answer an owner may count on its lanes.
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// How long the cycle may go without ending a step well before its lanes go to another instance.
const STEP_TIME_MAX: Duration = Duration::from_secs(15);

/// The lanes this instance owns, shared between the lock session, which takes and gives them up,
/// and the cycle, which sends their rows.
#[derive(Debug, Default)]
pub(crate) struct Ownership(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    owned: LaneSet,
    /// Lanes with rows on their way: they are neither claimed again nor given up.
    busy: LaneSet,
    /// Lanes to give up as soon as nothing of theirs is on its way.
    leaving: LaneSet,
    /// When the lock session was last known to live.
    confirmed_at: Option<Instant>,
    /// Since when the cycle has tried in vain, or is trying, to end a step.
    stepping_since: Option<Instant>,
}

/// What an instance has to do to come to its fair share.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Lanes that are not ours any more: their locks are to be released.
    pub(super) release: LaneSet,
    /// How many lanes more to take.
    pub(super) wanted: usize,
}

impl Ownership {
    /// Takes those of the wanted lanes that may be claimed now, and marks them busy in the same
    /// breath, so that none is given up meanwhile.
    ///
    /// None may be while the lock session has not answered for the length of its lease: a process
    /// that was frozen finds that out here, before it claims on old ownership.
    pub(crate) fn begin_claim(&self, wanted: LaneSet, now: Instant) -> LaneSet {
        let mut state = self.lock();
        let confirmed = state.confirmed_at.is_some_and(|at| now < at + LEASE);
        if !confirmed && !mutated(Mutation::KeepLostLane) {
            return LaneSet::EMPTY;
        }
        let claimed = state
            .owned
            .without(state.busy)
            .without(state.leaving)
            .and(wanted);
        state.busy = state.busy.or(claimed);
        claimed
    }

    /// Says which lanes have rows on their way, once a claim is done.
    pub(crate) fn set_busy(&self, busy: LaneSet) {
        self.lock().busy = busy;
    }

    /// The lanes owned now.
    #[must_use]
    pub(crate) fn owned(&self) -> LaneSet {
        self.lock().owned
    }

    /// The lock session answered a question that was asked at this time.
    pub(crate) fn confirm(&self, asked_at: Instant) {
        self.lock().confirmed_at = Some(asked_at);
    }

    /// The cycle begins a step.
    pub(crate) fn step_begins(&self, now: Instant) {
        self.lock().stepping_since.get_or_insert(now);
    }

    /// The step came to a good end.
    pub(crate) fn step_succeeded(&self) {
        self.lock().stepping_since = None;
    }

    /// Whether the cycle has not ended a step well for so long that another instance should have
    /// its lanes. (Waiting between steps is no failure, however long it takes.)
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let since = self.lock().stepping_since;
        since.is_some_and(|since| since + STEP_TIME_MAX <= now)
    }

    /// The lock session took these lanes.
    pub(crate) fn acquired(&self, lanes: LaneSet) {
        let mut state = self.lock();
        state.owned = state.owned.or(lanes);
    }

    /// The lock session is gone, and all lanes with it.
    pub(crate) fn lose(&self) {
        if mutated(Mutation::KeepLostLane) {
            return;
        }
        let mut state = self.lock();
        state.owned = LaneSet::EMPTY;
        state.leaving = LaneSet::EMPTY;
        state.confirmed_at = None;
    }

    /// Works out the way to the fair share among so many instances. Lanes over it are given up,
    /// idle ones first; one with rows on its way is only kept from further claims, and goes later.
    pub(super) fn plan(&self, instances: usize) -> Plan {
        let mut state = self.lock();
        let share = usize::from(LANES).div_ceil(instances.max(1));
        let surplus = state.owned.len().saturating_sub(share);
        let idle_first = state
            .owned
            .without(state.busy)
            .iter()
            .chain(state.owned.and(state.busy).iter());
        state.leaving = idle_first.take(surplus).collect();
        let release = state.leaving.without(state.busy);
        state.leaving = state.leaving.without(release);
        state.owned = state.owned.without(release);
        let wanted = share.saturating_sub(state.owned.len());
        Plan { release, wanted }
    }

    /// Whether this instance owns the first lane, which makes it the one that cleans up.
    #[must_use]
    pub(crate) fn is_first(&self) -> bool {
        let owned = self.owned();
        Lane::all().next().is_some_and(|lane| owned.contains(lane))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner_of_all(now: Instant) -> Ownership {
        let ownership = Ownership::default();
        ownership.acquired(LaneSet::ALL);
        ownership.confirm(now);
        ownership
    }

    fn lanes(numbers: impl IntoIterator<Item = i16>) -> LaneSet {
        let lanes = numbers.into_iter();
        lanes.map(|n| Lane::from_number(n).unwrap()).collect()
    }

    #[test]
    fn a_lane_with_rows_on_their_way_is_not_claimed_again() {
        let now = Instant::now();
        let ownership = owner_of_all(now);
        assert_eq!(ownership.begin_claim(LaneSet::ALL, now), LaneSet::ALL);
        assert_eq!(ownership.begin_claim(LaneSet::ALL, now), LaneSet::EMPTY);
        ownership.set_busy(lanes([1, 2]));
        let claimed = ownership.begin_claim(LaneSet::ALL, now);
        assert_eq!(claimed, LaneSet::ALL.without(lanes([1, 2])));
    }

    #[test]
    fn nothing_is_claimed_past_the_lease() {
        let now = Instant::now();
        let ownership = owner_of_all(now);
        assert!(ownership.begin_claim(LaneSet::ALL, now + LEASE).is_empty());
        ownership.confirm(now + LEASE);
        assert!(!ownership.begin_claim(LaneSet::ALL, now + LEASE).is_empty());
    }

    #[test]
    fn a_cycle_stalls_when_it_ends_no_step_well_for_too_long() {
        let now = Instant::now();
        let ownership = Ownership::default();
        assert!(!ownership.is_stalled(now));
        ownership.step_begins(now);
        ownership.step_begins(now + STEP_TIME_MAX / 2);
        assert!(!ownership.is_stalled(now + STEP_TIME_MAX / 2));
        assert!(
            ownership.is_stalled(now + STEP_TIME_MAX),
            "the first counts"
        );
        ownership.step_succeeded();
        assert!(!ownership.is_stalled(now + STEP_TIME_MAX * 2));
    }

    #[test]
    fn a_lost_session_loses_all_lanes() {
        let now = Instant::now();
        let ownership = owner_of_all(now);
        ownership.lose();
        assert!(ownership.begin_claim(LaneSet::ALL, now).is_empty());
        assert!(ownership.owned().is_empty());
    }

    #[test]
    fn shares_are_fair_and_cover_all_lanes() {
        for instances in 1..=70 {
            let ownership = Ownership::default();
            let wanted = ownership.plan(instances).wanted;
            assert!(wanted * instances >= usize::from(LANES), "{instances}");
            assert!(
                wanted <= usize::from(LANES).div_ceil(instances),
                "{instances}"
            );
        }
    }

    #[test]
    fn a_surplus_lane_is_given_up_only_when_nothing_of_it_is_on_its_way() {
        let now = Instant::now();
        let ownership = owner_of_all(now);
        let busy = lanes(20..64);
        ownership.set_busy(busy);
        // 20 idle lanes go at once; of the busy ones, 12 wait.
        let plan = ownership.plan(2);
        assert_eq!(plan.release, LaneSet::ALL.without(busy));
        assert_eq!(plan.wanted, 0);
        ownership.set_busy(LaneSet::EMPTY);
        let claimed = ownership.begin_claim(LaneSet::ALL, now);
        assert_eq!(claimed.len(), 32, "those that are leaving are not claimed");
        ownership.set_busy(LaneSet::EMPTY);
        assert_eq!(ownership.plan(2).release.len(), 12);
        assert_eq!(ownership.owned().len(), 32);
    }

    #[test]
    fn leaving_lanes_stay_when_the_other_instance_goes() {
        let now = Instant::now();
        let ownership = owner_of_all(now);
        ownership.set_busy(LaneSet::ALL);
        assert!(ownership.plan(2).release.is_empty());
        ownership.set_busy(LaneSet::EMPTY);
        assert_eq!(
            ownership.plan(1),
            Plan {
                release: LaneSet::EMPTY,
                wanted: 0
            }
        );
        assert_eq!(ownership.begin_claim(LaneSet::ALL, now), LaneSet::ALL);
    }
}
