use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{admin::Component, types::AccountId};
use metrics::gauge;
use tokio::sync::Notify;
use tracing::error;

use crate::health::{Health, Side};

/// Most kinds of failure that are told apart at a time; beyond that all are forgotten.
const KINDS_MAX: usize = 64;

/// What the loops that apply events know of failures, together: whether something is wrong with the
/// system and not with the events, so that nothing may be given up. Then the component `ledger` is not
/// ready, with the reason, and each loop stands still and tries again until it is mended.
///
/// Clones are of one loop. [`Self::of_another_loop`] shares what is known, and has a word of its own: a
/// loop that goes on does not speak for one that cannot.
#[derive(Clone, Debug)]
pub struct Failures {
    shared: Arc<Shared>,
    /// What this loop says.
    side: Side,
}

#[derive(Debug)]
struct Shared {
    /// So many accounts that fail alike in a row are a fault of the system.
    accounts_max: usize,
    ledger: Health,
    /// What the counts say.
    counted: Side,
    counts: Mutex<Counts>,
    /// A slice waits, undone, for something to be mended.
    holds_back: AtomicBool,
    parked: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// The accounts that failed since something was applied, by what their failures have in common.
    accounts: HashMap<String, HashSet<AccountId>>,
    /// They are a fault of the system.
    systemic: bool,
    /// When something was last applied.
    posted_at: Option<Instant>,
}

impl Failures {
    /// Nothing has failed yet, and the component is ready.
    #[must_use]
    pub fn new(ledger: Component, systemic_failures_max: u32) -> Self {
        gauge!("worker_standing_still").set(0);
        let ledger = Health::new(ledger);
        let (counted, side) = (ledger.quiet_side(), ledger.quiet_side());
        side.set_ready();
        let shared = Shared {
            accounts_max: usize::try_from(systemic_failures_max).unwrap_or(usize::MAX),
            ledger,
            counted,
            counts: Mutex::default(),
            holds_back: AtomicBool::new(false),
            parked: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
            side,
        }
    }

    /// The same failures, as another loop of this process sees them.
    #[must_use]
    pub fn of_another_loop(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            side: self.shared.ledger.quiet_side(),
        }
    }

    /// Notes that an event of an account failed by itself; answers whether the system is at fault, be it
    /// that this failure shows it. Then it does not count as an attempt, and is not written down. (What
    /// this loop itself complains of is for itself to try.)
    #[must_use]
    pub fn failed(&self, account: AccountId, signature: &str) -> bool {
        if self.another_complains() {
            return true;
        }
        let mut counts = self.counts();
        if counts.accounts.len() >= KINDS_MAX && !counts.accounts.contains_key(signature) {
            counts.accounts.clear();
        }
        let accounts = counts.accounts.entry(signature.to_owned()).or_default();
        accounts.insert(account);
        if accounts.len() < self.shared.accounts_max {
            return false;
        }
        let reason = format!(
            "events of {} accounts in a row failed alike: {signature}",
            accounts.len()
        );
        counts.systemic = true;
        complain(&self.shared.counted, &reason);
        true
    }

    /// Judges an event that is to be given up by how many other accounts have their failures written
    /// down, alike, be it by other workers: heads of queues are shared, and counts are not. Answers
    /// whether the system is at fault.
    ///
    /// It takes one account less than where each is met by this process: the one that shows the fault to
    /// another worker is not written down. (One account alone shows nothing.)
    #[must_use]
    pub fn others_failed(&self, others: usize, message: &str) -> bool {
        let accounts_max = self.shared.accounts_max.saturating_sub(1).max(2);
        let accounts = others + 1;
        if accounts < accounts_max {
            return false;
        }
        self.counts().systemic = true;
        let reason = format!(
            "parked events of {accounts} accounts failed alike, and none was applied here since: \
             {message}"
        );
        complain(&self.shared.counted, &reason);
        true
    }

    /// Notes that an event was applied: what failed before it was not the system's fault.
    pub fn posted(&self) {
        let mut counts = self.counts();
        counts.posted_at = Some(Instant::now());
        if !counts.accounts.is_empty() {
            counts.accounts.clear();
        }
        if std::mem::take(&mut counts.systemic) {
            self.retract(&self.shared.counted);
        }
    }

    /// How long ago an event was applied; none if none was.
    #[must_use]
    pub fn since_posted(&self) -> Option<Duration> {
        self.counts().posted_at.map(|at| at.elapsed())
    }

    /// Notes that no event is parked any more, by any worker. What failed alike came to its end, be it in
    /// other hands; where no slice waits here either, there is nothing left that could be applied and show
    /// that all is well, and the next failure is the first of its kind.
    pub fn nothing_is_parked(&self) {
        if self.shared.holds_back.load(Ordering::Relaxed) {
            return;
        }
        let mut counts = self.counts();
        if std::mem::take(&mut counts.systemic) {
            counts.accounts.clear();
            self.retract(&self.shared.counted);
        }
    }

    /// Why nothing may be given up: the reason of any loop. None if all is well.
    #[must_use]
    pub fn systemic(&self) -> Option<String> {
        self.shared.ledger.complaint()
    }

    /// Whether something else than this loop's own complaint says that the system is at fault: another
    /// loop's, or the counts.
    #[must_use]
    pub fn another_complains(&self) -> bool {
        self.side.another_complains()
    }

    /// Whether this loop may find out if it is mended: where it said so itself, or the counts do. What
    /// another loop met is for that one to try.
    #[must_use]
    pub fn may_probe(&self) -> bool {
        self.side.complaint().is_some() || self.shared.counted.complaint().is_some()
    }

    /// Notes that this loop cannot go on until somebody has mended something.
    pub fn stand_still(&self, reason: &str) {
        complain(&self.side, reason);
    }

    /// Notes that what this loop complained of is over.
    pub fn recovered(&self) {
        self.retract(&self.side);
    }

    /// Notes that a slice waits, undone, until somebody has mended something: for this reason, or without
    /// one for what something else complains of. Then it came as far as its event's own failure, so what
    /// its loop complained of before is over, and must not keep the one that could show the rest.
    pub fn hold_back(&self, reason: Option<&str>) {
        self.shared.holds_back.store(true, Ordering::Relaxed);
        match reason {
            Some(reason) => self.stand_still(reason),
            None => self.recovered(),
        }
    }

    /// Notes that no slice waits any more: what did is done, or another worker's now.
    pub fn moved_on(&self) {
        self.shared.holds_back.store(false, Ordering::Relaxed);
        self.recovered();
    }

    /// Notes that this process parked an event: the loop that retries has something to wait for.
    pub fn parked(&self) {
        self.shared.parked.notify_one();
    }

    /// Waits until this process parked an event since this was last waited for.
    pub async fn something_parked(&self) {
        self.shared.parked.notified().await;
    }

    fn retract(&self, side: &Side) {
        if side.complaint().is_none() {
            return;
        }
        side.set_ready();
        if self.systemic().is_none() {
            gauge!("worker_standing_still").set(0);
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.shared
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says it once, not at each attempt.
fn complain(side: &Side, reason: &str) {
    if side.complaint().as_deref() == Some(reason) {
        return;
    }
    side.set_unready(reason);
    gauge!("worker_standing_still").set(1);
    error!(
        reason,
        "no event can be applied: nothing is given up, and all goes on when it is mended"
    );
}

#[cfg(test)]
mod tests {
    use common::admin::Readiness;

    use super::*;

    fn failures(max: u32) -> (Failures, Readiness) {
        let readiness = Readiness::default();
        (Failures::new(readiness.component("ledger"), max), readiness)
    }

    #[test]
    fn so_many_accounts_in_a_row_that_fail_alike_are_the_systems_fault() {
        let (failures, readiness) = failures(3);
        assert!(readiness.reasons().is_empty());
        let [a, b, c] = [(); 3].map(|()| AccountId::new());
        for account in [a, b, a, b] {
            assert!(!failures.failed(account, "23505 x"));
        }
        assert!(!failures.failed(c, "23514 y"), "another failure");
        assert!(failures.systemic().is_none());
        assert!(failures.failed(c, "23505 x"));
        assert!(readiness.reasons()["ledger"].contains("23505 x"));
        // Whatever fails now is not its own fault, as far as anybody knows.
        assert!(failures.failed(a, "22003 z"));
        failures.posted();
        assert!(readiness.reasons().is_empty());
        assert!(!failures.failed(c, "23505 x"), "forgotten");
    }

    #[test]
    fn something_applied_in_between_shows_that_the_system_is_well() {
        let (failures, _) = failures(2);
        for _ in 0..10 {
            assert!(!failures.failed(AccountId::new(), "23505 x"));
            failures.posted();
        }
    }

    #[test]
    fn kinds_without_number_are_not_kept_for_ever() {
        let (failures, _) = failures(2);
        for number in 0..10 * KINDS_MAX {
            assert!(!failures.failed(AccountId::new(), &number.to_string()));
        }
        assert!(failures.counts().accounts.len() <= KINDS_MAX);
    }

    #[test]
    fn a_loop_that_goes_on_does_not_speak_for_one_that_cannot() {
        let (slices, readiness) = failures(2);
        let retries = slices.of_another_loop();
        retries.stand_still("may not delete");
        slices.posted();
        slices.moved_on();
        assert_eq!(readiness.reasons()["ledger"], "may not delete");
        assert_eq!(slices.systemic().as_deref(), Some("may not delete"));
        assert!(slices.failed(AccountId::new(), "x"));
        assert!(!retries.failed(AccountId::new(), "x"));
        assert!(retries.may_probe() && !slices.may_probe());
        retries.recovered();
        assert!(readiness.reasons().is_empty());
    }

    #[test]
    fn loops_that_both_complain_do_not_wait_for_each_other() {
        let (slices, readiness) = failures(20);
        let retries = slices.of_another_loop();
        retries.stand_still("may not insert");
        slices.hold_back(Some("may not insert"));
        // It is mended, and the slice comes as far as its event's own failure.
        assert!(slices.failed(AccountId::new(), "x"));
        slices.hold_back(None);
        assert!(!retries.another_complains());
        retries.recovered();
        assert!(!slices.failed(AccountId::new(), "x"));
        assert!(readiness.reasons().is_empty());
    }

    #[test]
    fn written_failures_of_others_count_and_one_less_is_enough() {
        for (max, others, is_systemic) in [(20, 17, false), (20, 18, true), (2, 0, false)] {
            let (failures, readiness) = failures(max);
            assert_eq!(failures.others_failed(others, "poison"), is_systemic);
            assert_eq!(readiness.reasons().is_empty(), !is_systemic);
            failures.posted();
            assert!(readiness.reasons().is_empty());
        }
    }

    #[test]
    fn what_failed_alike_is_forgotten_when_nothing_is_left_of_it() {
        let (slices, readiness) = failures(2);
        let retries = slices.of_another_loop();
        let fail = || slices.failed(AccountId::new(), "23505 x");
        assert!(!fail());
        // Below the limit nothing is forgotten: failures that come one by one add up, too.
        retries.nothing_is_parked();
        assert!(fail());
        slices.hold_back(None);
        retries.nothing_is_parked();
        assert!(readiness.reasons().contains_key("ledger"), "a slice waits");
        slices.moved_on();
        retries.nothing_is_parked();
        assert!(readiness.reasons().is_empty());
        assert!(!fail());
    }

    #[tokio::test]
    async fn one_loop_hears_that_another_parked_something() {
        let (slices, _) = failures(2);
        let retries = slices.of_another_loop();
        slices.parked();
        retries.something_parked().await;
    }
}
