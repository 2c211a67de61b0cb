#[cfg(test)]
mod tests;

use std::time::Duration;

use common::types::LaneSet;
use tokio::time::Instant;
use tracing::{error, warn};

use super::flights::{Flights, Route};
use crate::{
    backoff::Backoff,
    courier::{Courier, Report, Signals},
    health::HealthSide,
};

/// How long the reports of a purged courier are waited for; then their rows count as unknown.
const PURGE_DEADLINE: Duration = Duration::from_secs(5);
/// Pauses before a failed courier is replaced.
const REPLACE_PAUSE_FIRST: Duration = Duration::from_millis(20);
const REPLACE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long rows may be on their way before the broker counts as not working: it may be reachable
/// and yet take nothing, e.g. with too few replicas in sync.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(10);
/// How long a producer that was never used must have lived to show that the brokers accept it.
const PROBATION: Duration = Duration::from_secs(2);

/// The courier of one route, and its successors.
struct Post {
    courier: Option<Courier>,
    /// When the courier was made.
    opened_at: Instant,
    state: State,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Takes rows.
    Open,
    /// Takes no more rows, and goes when those it has are reported: the topics' limit changed.
    Closing,
    /// Failed and was purged; it goes with its last report, or at the deadline.
    Failed { deadline: Instant },
    /// There is none, and no new one is made before this time.
    Vacant { until: Instant },
}

/// The two producers: one for the common traffic, and one for the rows of lanes in trouble, whose
/// refusal must not hold up the others.
pub(super) struct Couriers {
    brokers: String,
    partitions: i32,
    signals: Signals,
    main: Post,
    probe: Post,
    broker: HealthSide,
    /// What was wrong with the brokers, until something shows that they work.
    pub(super) complaint: Option<String>,
}

impl Couriers {
    pub(super) fn new(
        brokers: String,
        partitions: i32,
        signals: Signals,
        broker: HealthSide,
    ) -> Self {
        Self {
            brokers,
            partitions,
            signals,
            main: Post::new(),
            probe: Post::new(),
            broker,
            complaint: None,
        }
    }

    /// The courier of a route, if it takes rows now; made on demand for the topics' present limit.
    pub(super) fn open(&mut self, route: Route, message_bytes_max: i32) -> Option<&mut Courier> {
        let State::Vacant { until } = self.post(route).state else {
            return self.present(route);
        };
        if Instant::now() < until {
            return None;
        }
        let signals = self.signals.clone();
        match Courier::new(&self.brokers, self.partitions, message_bytes_max, signals) {
            Ok(courier) => {
                let post = self.post(route);
                post.courier = Some(courier);
                post.opened_at = Instant::now();
                post.state = State::Open;
            }
            Err(error) => {
                self.complaint = Some(format!("no producer can be made: {error}"));
                self.post(route).vacate();
            }
        }
        self.present(route)
    }

    /// The courier of a route, if it takes rows now.
    pub(super) fn present(&mut self, route: Route) -> Option<&mut Courier> {
        let post = self.post(route);
        (post.state == State::Open).then_some(())?;
        post.courier.as_mut()
    }

    /// The next report there is.
    pub(super) fn next_report(&mut self, route: Route) -> Option<Report> {
        self.post(route).courier.as_mut()?.next_report()
    }

    /// The broker took a row.
    pub(super) fn delivered(&mut self, route: Route, topic: usize, partition: i32) {
        let post = self.post(route);
        post.backoff.reset();
        if let Some(courier) = &mut post.courier {
            courier.note_known(topic, partition, Instant::now());
        }
        self.complaint = None;
    }

    /// Nothing waits to be sent, so no delivery can show that the brokers work again. Instead, a
    /// producer does that they have not refused, and an answer of theirs long enough after its
    /// making.
    pub(super) fn nothing_waits(&mut self, answered_at: Option<Instant>) {
        let main = &self.main;
        let sound = main.state == State::Open
            && main.courier.as_ref().is_some_and(|it| !it.has_failed())
            && answered_at.is_some_and(|at| main.opened_at + PROBATION <= at);
        if sound {
            self.complaint = None;
        }
    }

    /// Says whether the brokers take what is sent.
    pub(super) fn tell(&self, flights: &Flights, now: Instant) {
        let late = overdue_at(flights).is_some_and(|due| due <= now);
        match &self.complaint {
            Some(complaint) => self.broker.set_unready(complaint.clone()),
            None if late => self.broker.set_unready(format!(
                "reachable, but some rows have had no answer for more than {} s",
                ANSWER_AGE_MAX.as_secs()
            )),
            None => self.broker.set_ready(),
        }
    }

    /// Replaces what failed and what was made for another limit, as far as the reports allow. The
    /// answer is the lanes with rows whose reports did not come.
    pub(super) fn tend(
        &mut self,
        flights: &mut Flights,
        message_bytes_max: Option<i32>,
    ) -> LaneSet {
        let mut abandoned = LaneSet::EMPTY;
        for route in [Route::Main, Route::Probe] {
            self.close_if_outdated(route, message_bytes_max);
            self.purge_if_failed(route);
            let outstanding = flights.outstanding_on(route);
            let post = self.post(route);
            match post.state {
                State::Closing if outstanding == 0 => post.renew(),
                State::Failed { deadline } if outstanding == 0 || deadline <= Instant::now() => {
                    if outstanding > 0 {
                        warn!(outstanding, "reports of a failed producer did not come");
                    }
                    abandoned = abandoned.or(flights.abandon(route));
                    post.vacate();
                }
                _ => {}
            }
        }
        abandoned
    }

    /// Lets the courier of a route go that is not needed any more. Nothing of it may be under way.
    pub(super) fn dismiss(&mut self, route: Route) {
        self.post(route).renew();
    }

    fn close_if_outdated(&mut self, route: Route, message_bytes_max: Option<i32>) {
        let post = self.post(route);
        let made_for = post.courier.as_ref().map(Courier::message_bytes_max);
        let outdated =
            made_for.is_some() && message_bytes_max.is_some_and(|now| made_for != Some(now));
        if outdated && post.state == State::Open {
            post.state = State::Closing;
        }
    }

    fn purge_if_failed(&mut self, route: Route) {
        let post = self.post(route);
        let (Some(courier), State::Open | State::Closing) = (&post.courier, post.state) else {
            return;
        };
        if !courier.has_failed() {
            return;
        }
        error!(
            ?route,
            "a producer failed: its rows are sent again by a new one"
        );
        let complaint = courier.broker_complaint();
        courier.purge();
        post.state = State::Failed {
            deadline: Instant::now() + PURGE_DEADLINE,
        };
        if let Some(complaint) = complaint {
            self.complaint = Some(format!("the producer failed: {complaint}"));
        }
    }

    fn post(&mut self, route: Route) -> &mut Post {
        match route {
            Route::Main => &mut self.main,
            Route::Probe => &mut self.probe,
        }
    }
}

/// When the oldest row without an answer will have waited for too long.
pub(super) fn overdue_at(flights: &Flights) -> Option<Instant> {
    Some(flights.oldest()? + ANSWER_AGE_MAX)
}

impl Post {
    fn new() -> Self {
        Self {
            courier: None,
            opened_at: Instant::now(),
            state: State::Vacant {
                until: Instant::now(),
            },
            backoff: Backoff::new(REPLACE_PAUSE_FIRST, REPLACE_PAUSE_MAX),
        }
    }

    /// After a failure: the successor comes after a pause.
    fn vacate(&mut self) {
        let pause = self.backoff.pause();
        self.let_go(Instant::now() + pause);
    }

    /// Without a failure: the successor comes when it is needed.
    fn renew(&mut self) {
        self.let_go(Instant::now());
    }

    fn let_go(&mut self, until: Instant) {
        if let Some(courier) = self.courier.take() {
            courier.retire();
        }
        self.state = State::Vacant { until };
    }
}
