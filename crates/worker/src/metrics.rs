//! What the worker counts. Counters move only after a commit.

use std::{collections::HashMap, time::Duration};

use common::types::{
    DeadLetterClass, EventType, FailureReason, TransactionCreated, TransactionType,
};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram};

use crate::{config::SERVICE, event::Item, ledger::Posting, slice::Outcome};

/// Says what each metric means, for the scrape's HELP lines.
pub fn describe() {
    describe_counter!(
        "transactions_processed_total",
        "Transactions posted to the ledger"
    );
    describe_counter!(
        "transactions_failed_total",
        "Transactions refused, by reason"
    );
    describe_counter!(
        "transaction_amount_cents_total",
        "Sum of the amounts posted, in minor units of the currency"
    );
    describe_counter!(
        "events_consumed_total",
        "Records taken from the topic, by what became of them: applied, rejected, duplicate, parked, dead"
    );
    describe_histogram!(
        "worker_processing_duration_seconds",
        Unit::Seconds,
        "Time to apply a slice, from its first attempt to its commit"
    );
    describe_histogram!("worker_slice_events", "Events applied in one transaction");
    describe_counter!(
        "worker_slice_retries_total",
        "Slices tried again, by class: collision (two transactions collided; in halves after many in a \
         row), away (no database), too_long and of_one_event (in halves), systemic (nothing can be applied)"
    );
    describe_gauge!(
        "worker_standing_still",
        "1 while no event can be applied and somebody has to mend something"
    );
    describe_histogram!(
        "event_end_to_end_latency_seconds",
        Unit::Seconds,
        "Time from a transaction's acceptance to the commit that posted or refused it"
    );
    describe_counter!(
        "db_pool_acquire_timeouts_total",
        "Times that no connection was had within the limit"
    );
    describe_counter!(
        "consumer_offset_out_of_range_total",
        "Times that the log no longer had what was to be read next: events were lost"
    );
    describe_counter!(
        "processed_events_pruned_total",
        "Closed events past their retention removed"
    );
    describe_gauge!(
        "worker_parked_events",
        "Events that wait for a retry, or behind one that does, in all accounts; counted up to a limit"
    );
    describe_counter!(
        "worker_retries_total",
        "Attempts at events that had failed before"
    );
    describe_counter!(
        "dlq_messages_total",
        "Records given up, by the class of their error"
    );
}

/// What became of a slice's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// In the ledger now.
    pub applied: usize,
    /// Refused now.
    pub rejected: usize,
    /// Closed, parked or made a dead letter before.
    pub duplicate: usize,
    /// Parked now.
    pub parked: usize,
    /// A dead letter now.
    pub dead: usize,
}

impl Tally {
    /// How many records they are.
    #[must_use]
    pub const fn records(self) -> usize {
        self.ended() + self.duplicate + self.parked + self.dead
    }

    /// How many of them ended their transactions.
    #[must_use]
    pub const fn ended(self) -> usize {
        self.applied + self.rejected
    }

    /// Counts outcomes.
    #[must_use]
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            *match outcome {
                Outcome::Closed { posting, .. } => match posting {
                    Posting::Applied(_) => &mut tally.applied,
                    Posting::Rejected(_) => &mut tally.rejected,
                },
                Outcome::Duplicate => &mut tally.duplicate,
                Outcome::Parked => &mut tally.parked,
                Outcome::Dead(_) | Outcome::Unusable => &mut tally.dead,
            } += 1;
        }
        tally
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.applied += other.applied;
        self.rejected += other.rejected;
        self.duplicate += other.duplicate;
        self.parked += other.parked;
        self.dead += other.dead;
    }
}

/// A slice was committed, so long after its first attempt began.
pub fn slice_committed(items: &[Item], outcomes: &[Outcome], tally: Tally, took: Duration) {
    consumed("applied", tally.applied);
    consumed("rejected", tally.rejected);
    consumed("duplicate", tally.duplicate);
    consumed("parked", tally.parked);
    consumed("dead", tally.dead);
    histogram!("worker_processing_duration_seconds").record(took);
    histogram!("worker_slice_events").record(as_f64(items.len()));
    let latency = histogram!("event_end_to_end_latency_seconds");
    for outcome in outcomes {
        if let Outcome::Closed { age_seconds, .. } = outcome {
            latency.record(*age_seconds);
        }
    }
    let both = items.iter().zip(outcomes);
    posted(
        both.filter_map(|(item, outcome)| Some((item.event()?.transaction, outcome.posting()?))),
    );
}

/// Parked events came to their end, so long after the acceptance of each; of them so many had failed
/// before.
pub fn retries_committed(retries: usize, ended: &[(TransactionCreated, Posting, Duration)]) {
    let applied = |(_, posting, _): &&(_, Posting, _)| matches!(posting, Posting::Applied(_));
    let applied = ended.iter().filter(applied).count();
    consumed("applied", applied);
    consumed("rejected", ended.len() - applied);
    parked_retried(retries);
    let latency = histogram!("event_end_to_end_latency_seconds");
    for (_, _, age) in ended {
        latency.record(*age);
    }
    posted(ended.iter().map(|(claim, posting, _)| (*claim, *posting)));
}

/// So many events that had failed before were tried again.
pub fn parked_retried(events: usize) {
    let event_type = EventType::TransactionCreated.as_str();
    if events > 0 {
        counter!("worker_retries_total", "type" => event_type).increment(as_u64(events));
    }
}

/// So many records became dead letters.
pub fn dead_lettered(class: DeadLetterClass, letters: usize) {
    if letters > 0 {
        counter!("dlq_messages_total", "class" => class.as_str()).increment(as_u64(letters));
    }
}

/// A slice has to be tried again.
pub fn retried(class: &'static str) {
    counter!("worker_slice_retries_total", "class" => class).increment(1);
}

/// Counts a database error if it is that no connection came free, or could be made, in time.
pub fn acquire_failed(error: &sqlx::Error) {
    if matches!(error, sqlx::Error::PoolTimedOut) {
        counter!("db_pool_acquire_timeouts_total", "pool" => SERVICE).increment(1);
    }
}

fn consumed(status: &'static str, count: usize) {
    let event_type = EventType::TransactionCreated.as_str();
    if count > 0 {
        counter!("events_consumed_total", "type" => event_type, "status" => status)
            .increment(as_u64(count));
    }
}

/// What a counter of postings is kept by.
type Kind = (TransactionType, &'static str, Option<FailureReason>);

/// Adds up first: a slice has hundreds of events and a handful of kinds.
fn posted(postings: impl Iterator<Item = (TransactionCreated, Posting)>) {
    let mut kinds: HashMap<Kind, (u64, u64)> = HashMap::new();
    for (claim, posting) in postings {
        let kind = (
            claim.transaction_type,
            claim.currency.as_str(),
            posting.failure_reason(),
        );
        let (count, cents) = kinds.entry(kind).or_default();
        *count += 1;
        // The counter is a u64 and wraps after all the money there is twice over.
        *cents = cents.wrapping_add(claim.amount_cents.get().unsigned_abs());
    }
    for ((transaction_type, currency, reason), (count, cents)) in kinds {
        let labels = [("type", transaction_type.as_str()), ("currency", currency)];
        match reason {
            None => {
                counter!("transactions_processed_total", &labels).increment(count);
                counter!("transaction_amount_cents_total", &labels).increment(cents);
            }
            Some(reason) => {
                let [kind, currency] = labels;
                let labels = [kind, currency, ("reason", reason.as_str())];
                counter!("transactions_failed_total", &labels).increment(count);
            }
        }
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
