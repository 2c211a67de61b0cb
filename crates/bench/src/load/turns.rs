use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{Schedule, Tally};

/// The runtime's timers fire at whole milliseconds. Half of one earlier spreads the error to both
/// sides; a request that goes out early counts from when it went out.
const TIMER_ERROR: Duration = Duration::from_micros(500);
/// For how long after a load's end requests that were due before it may still be sent. Without it,
/// those that happen to wait for a connection when the time is up would be lost to the count.
pub const GRACE: Duration = Duration::from_secs(3);
/// How often a window that is full is looked at again.
const WINDOW_POLL: Duration = Duration::from_millis(1);

/// When a load sends its requests.
#[derive(Clone, Debug)]
pub enum Pace {
    /// At a constant rate, whatever the answers do.
    Constant(Schedule),
    /// As fast as it goes, as long as no more than a limit are sent and not finished.
    Window(Window),
}

/// Holds a load back by what the system has finished.
#[derive(Clone, Debug)]
pub struct Window {
    /// Most transactions sent and not finished.
    pub limit: u64,
    /// How many the system has finished since the load began, kept up to date by somebody else.
    pub finished: Arc<AtomicU64>,
    /// How long the load lasts.
    pub lasts: Duration,
}

/// Hands out the turns to send a request, in their order.
#[derive(Debug)]
pub(super) struct Turns {
    pace: Pace,
    started: Instant,
    taken: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Pace {
    /// How long it lasts.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Constant(schedule) => schedule.lasts(),
            Self::Window(window) => window.lasts,
        }
    }
}

impl Turns {
    pub(super) fn start(pace: Pace, stop: Arc<AtomicBool>) -> Self {
        Self {
            pace,
            started: Instant::now(),
            taken: AtomicU64::new(0),
            stop,
        }
    }

    /// Waits for the next turn and answers when its request was meant to start; nothing once the
    /// load is over.
    pub(super) async fn next(&self) -> Option<Instant> {
        match &self.pace {
            Pace::Constant(schedule) => self.next_of(schedule).await,
            Pace::Window(window) => self.next_in(window).await,
        }
    }

    async fn next_of(&self, schedule: &Schedule) -> Option<Instant> {
        let number = self.taken.load(Ordering::Relaxed);
        if self.is_over(GRACE) || number >= schedule.requests() {
            return None;
        }
        self.taken.store(number + 1, Ordering::Relaxed);
        let due = self.started + schedule.due(number);
        if due > Instant::now() {
            sleep_until(due - TIMER_ERROR).await;
        }
        Some(due.min(Instant::now()))
    }

    async fn next_in(&self, window: &Window) -> Option<Instant> {
        while !self.is_over(Duration::ZERO) {
            let taken = self.taken.load(Ordering::Relaxed);
            if taken.saturating_sub(window.finished.load(Ordering::Relaxed)) < window.limit {
                self.taken.store(taken + 1, Ordering::Relaxed);
                return Some(Instant::now());
            }
            sleep(WINDOW_POLL).await;
        }
        None
    }

    /// How many were handed out.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Since the first turn could be taken.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts the requests that were due and never had their turn, each with the time that it had
    /// waited when it was given up: leaving them out would flatter a system that could not keep up.
    pub(super) fn count_unsent(&self, tally: &mut Tally) {
        let Pace::Constant(schedule) = &self.pace else {
            return;
        };
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        for number in self.taken()..schedule.requests() {
            tally.unsent += 1;
            let given_up = schedule.lasts() + GRACE;
            tally.record(given_up.saturating_sub(schedule.due(number)));
        }
    }

    fn is_over(&self, grace: Duration) -> bool {
        self.stop.load(Ordering::Relaxed) || self.elapsed() >= self.pace.lasts() + grace
    }
}
