//! How much is accepted and not finished, watched while it changes.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use e2e::{Kind, Service};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::figures::{float, per_second};

/// How often the services' counters are read.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// The services' counters at one moment, since the watch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// Transactions that were accepted.
    pub accepted: u64,
    /// Results that the broker has acknowledged.
    pub published: u64,
}

impl Sample {
    /// Accepted, and its result not published yet.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.accepted.saturating_sub(self.published)
    }
}

/// Reads the services' counters in the background, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    samples: Arc<Mutex<Vec<Sample>>>,
    published: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to watch: accepted and published count from now.
    pub async fn start(services: &[Service], results_topic: &str) -> Self {
        let (samples, published) = (Arc::default(), Arc::default());
        let counters = Counters::at_zero(services, results_topic).await;
        let task = tokio::spawn(watch(
            counters,
            Arc::clone(&samples),
            Arc::clone(&published),
        ));
        Self {
            samples,
            published,
            task,
        }
    }

    /// How many results were published by the last sample, kept up to date.
    #[must_use]
    pub fn published(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.published)
    }

    /// What was seen so far.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let samples = self.samples.lock();
        samples.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last sample's backlog.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.samples().last().map_or(0, Sample::backlog)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(counters: Counters, samples: Arc<Mutex<Vec<Sample>>>, published: Arc<AtomicU64>) {
    let started = Instant::now();
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = counters.sample(started).await;
        published.store(sample.published, Ordering::Relaxed);
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push(sample);
    }
}

/// The services that count, and what their counters stood at when the watch began.
#[derive(Debug)]
struct Counters {
    services: Vec<Service>,
    topic: String,
    zero: (u64, u64),
}

impl Counters {
    async fn at_zero(services: &[Service], topic: &str) -> Self {
        let mut counters = Self {
            services: services.to_vec(),
            topic: topic.to_owned(),
            zero: (0, 0),
        };
        counters.zero = counters.read().await;
        counters
    }

    async fn sample(&self, started: Instant) -> Sample {
        let (accepted, published) = self.read().await;
        Sample {
            at: started.elapsed(),
            accepted: accepted.saturating_sub(self.zero.0),
            published: published.saturating_sub(self.zero.1),
        }
    }

    /// The published ones first: what is read later may only be more, so that the backlog is never
    /// taken for smaller than it is.
    async fn read(&self) -> (u64, u64) {
        let published = published(&self.services, &self.topic).await;
        (accepted(&self.services).await, published)
    }
}

/// How many transactions the apis have accepted since they were started.
pub async fn accepted(services: &[Service]) -> u64 {
    sum(services, Kind::Api, "transactions_accepted_total", &[]).await
}

/// How many events of a topic the broker has acknowledged to the publishers since they were started.
pub async fn published(services: &[Service], topic: &str) -> u64 {
    let labels = [("topic", topic), ("result", "acknowledged")];
    sum(services, Kind::Publisher, "outbox_published_total", &labels).await
}

/// How many transactions the workers have brought to their end since they were started.
pub async fn finished(services: &[Service]) -> u64 {
    let processed = sum(services, Kind::Worker, "transactions_processed_total", &[]).await;
    processed + sum(services, Kind::Worker, "transactions_failed_total", &[]).await
}

async fn sum(services: &[Service], kind: Kind, name: &str, labels: &[(&str, &str)]) -> u64 {
    let mut total = 0.0;
    for service in services.iter().filter(|service| service.kind() == kind) {
        total += service.metric_of(name, labels).await.unwrap_or_default();
    }
    whole(total)
}

/// A counter's value as the whole number it is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a counter is a whole number, not below 0, and far below 2^53"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

/// By how much the backlog grew a second, by least squares over the samples.
#[must_use]
pub fn slope(samples: &[Sample]) -> f64 {
    let n = float(crate::figures::count(samples.len()));
    let points = samples
        .iter()
        .map(|s| (s.at.as_secs_f64(), float(s.backlog())));
    let (sum_x, sum_y) = points
        .clone()
        .fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let (over, under) = points.fold((0.0, 0.0), |(over, under), (x, y)| {
        (
            over + (x - mean_x) * (y - mean_y),
            under + (x - mean_x).powi(2),
        )
    });
    if under > 0.0 { over / under } else { 0.0 }
}

/// How many results were published a second between the first and the last of these samples.
#[must_use]
pub fn published_per_second(samples: &[Sample]) -> f64 {
    match samples {
        [first, .., last] => per_second(
            last.published.saturating_sub(first.published),
            last.at.saturating_sub(first.at),
        ),
        _ => 0.0,
    }
}

/// The samples of a span of time.
#[must_use]
pub fn between(samples: &[Sample], from: Duration, to: Duration) -> Vec<Sample> {
    let within = |sample: &&Sample| sample.at >= from && sample.at <= to;
    samples.iter().filter(within).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten samples a second of a system that takes some and finishes some.
    fn samples(seconds: u64, accepted: u64, published: u64) -> Vec<Sample> {
        (0..seconds * 10)
            .map(|tenth| Sample {
                at: Duration::from_millis(tenth * 100),
                accepted: 500 + accepted * tenth / 10,
                published: published * tenth / 10,
            })
            .collect()
    }

    #[test]
    fn a_backlog_that_stays_has_no_slope() {
        assert!(slope(&samples(60, 12_000, 12_000)).abs() < 1.0);
        assert!(slope(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn a_backlog_that_grows_has_the_slope_of_its_growth() {
        let grown = slope(&samples(60, 12_000, 11_500));
        assert!((495.0..505.0).contains(&grown), "{grown}");
    }

    #[test]
    fn the_rate_of_a_span_is_that_of_the_results() {
        let all = samples(20, 12_000, 10_000);
        let second_half = between(&all, Duration::from_secs(10), Duration::from_secs(20));
        let rate = published_per_second(&second_half);
        assert!((9_990.0..10_010.0).contains(&rate), "{rate}");
    }
}
