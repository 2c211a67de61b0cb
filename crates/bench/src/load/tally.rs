use std::time::Duration;

use hdrhistogram::Histogram;
use uuid::Uuid;

use crate::figures::{micros, millis};

/// The longest latency that is told apart from longer ones, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;

/// What became of the requests of a load.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The ids of the transactions that were acknowledged.
    pub acknowledged: Vec<Uuid>,
    /// Transactions that were answered something else than "accepted now", which says that they were not
    /// written.
    pub refused: u64,
    /// What the first refusal said.
    pub first_refusal: Option<String>,
    /// Transactions that may exist: their connection broke, they had no answer in time, or one that leaves
    /// it open (504, `outcome_unknown`).
    pub unknown: u64,
    /// Requests that were due and could not be sent within [`GRACE`](super::GRACE) of the load's end.
    /// Each counts in the latency with the time that it had waited until then.
    pub unsent: u64,
    /// From the intended start of each request to the end of its answer, in microseconds.
    pub latency: Histogram<u64>,
    /// How long requests were sent and answered.
    pub took: Duration,
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Panics
    /// Never: the histogram's bounds are good ones.
    #[must_use]
    pub fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        #[expect(clippy::expect_used, reason = "the bounds are constants")]
        let latency = latency.expect("bad bounds of a histogram");
        Self {
            acknowledged: Vec::new(),
            refused: 0,
            first_refusal: None,
            unknown: 0,
            unsent: 0,
            latency,
            took: Duration::ZERO,
        }
    }

    /// Something took that long.
    pub fn record(&mut self, latency: Duration) {
        self.latency.saturating_record(micros(latency).max(1));
    }

    /// Transactions were answered that they were not accepted.
    pub fn refuse(&mut self, transactions: u64, why: impl FnOnce() -> String) {
        self.refused += transactions;
        self.first_refusal.get_or_insert_with(why);
    }

    /// A latency in milliseconds, below which so many of a hundred lie.
    #[must_use]
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        millis(self.latency.value_at_quantile(percent / 100.0))
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}
