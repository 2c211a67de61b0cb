//! How much was offered and is not finished, watched while it changes.

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

use crate::{
    figures::{count, float, per_second},
    load::Schedule,
};

/// How often the services' counters are read.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// What the publishers have counted at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When, since the watch or the load began. The counter was read before the clock, so that at this
    /// time there may be more results, never fewer.
    pub at: Duration,
    /// Results that the broker has acknowledged since the watch began.
    pub published: u64,
}

/// Reads the publishers' counters in the background, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    started: Instant,
    samples: Arc<Mutex<Vec<Sample>>>,
    published: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to watch: results count from now.
    pub async fn start(services: &[Service], results_topic: &str) -> Self {
        let (samples, latest) = (Arc::default(), Arc::default());
        let counter = Counter {
            services: services.to_vec(),
            topic: results_topic.to_owned(),
            zero: published(services, results_topic).await,
            started: Instant::now(),
        };
        Self {
            started: counter.started,
            samples: Arc::clone(&samples),
            published: Arc::clone(&latest),
            task: tokio::spawn(watch(counter, samples, latest)),
        }
    }

    /// How many results were published by the last sample, kept up to date.
    #[must_use]
    pub fn published(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.published)
    }

    /// Since the watch began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What was seen so far.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let samples = self.samples.lock();
        samples.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(counter: Counter, samples: Arc<Mutex<Vec<Sample>>>, latest: Arc<AtomicU64>) {
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = counter.sample().await;
        latest.store(sample.published, Ordering::Relaxed);
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push(sample);
    }
}

/// The services that count, and what their counters stood at when the watch began.
#[derive(Debug)]
struct Counter {
    services: Vec<Service>,
    topic: String,
    zero: u64,
    started: Instant,
}

impl Counter {
    async fn sample(&self) -> Sample {
        let published = published(&self.services, &self.topic).await;
        Sample {
            at: self.started.elapsed(),
            published: published.saturating_sub(self.zero),
        }
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

/// The samples from a moment on, with their times counted from it.
#[must_use]
pub fn since(samples: &[Sample], moment: Duration) -> Vec<Sample> {
    let later = |sample: &Sample| {
        let at = sample.at.checked_sub(moment)?;
        Some(Sample { at, ..*sample })
    };
    samples.iter().filter_map(later).collect()
}

/// The backlog at each sample: what the schedule has offered by then, and whose result is not
/// published yet. A request counts from when it was due, wherever it is: with the generator, where it
/// waits for a connection, with the api, or anywhere behind it.
#[must_use]
pub fn backlogs(samples: &[Sample], schedule: Schedule) -> Vec<(Duration, u64)> {
    let backlog = |sample: &Sample| {
        let offered = schedule.due_by(sample.at);
        (sample.at, offered.saturating_sub(sample.published))
    };
    samples.iter().map(backlog).collect()
}

/// By how much a backlog grew a second, by least squares.
#[must_use]
pub fn slope(backlogs: &[(Duration, u64)]) -> f64 {
    let n = float(count(backlogs.len()));
    let points = backlogs
        .iter()
        .map(|(at, backlog)| (at.as_secs_f64(), float(*backlog)));
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

    /// Ten samples a second of a system that finishes so many a second, 50 ms behind.
    fn samples(seconds: u64, published: u64) -> Vec<Sample> {
        let sample = |tenth: u64| Sample {
            at: Duration::from_millis(tenth * 100 + 50),
            published: published * tenth / 10,
        };
        (0..seconds * 10).map(sample).collect()
    }

    fn slope_at(offered: u32, published: u64) -> f64 {
        let schedule = Schedule::new(offered, Duration::from_mins(1));
        slope(&backlogs(&samples(60, published), schedule))
    }

    #[test]
    fn a_backlog_that_stays_has_no_slope() {
        assert!(slope_at(12_000, 12_000).abs() < 1.0);
        assert!(slope(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn a_backlog_that_grows_has_the_slope_of_its_growth() {
        let grown = slope_at(12_000, 11_500);
        assert!((495.0..505.0).contains(&grown), "{grown}");
    }

    #[test]
    fn what_is_due_counts_until_its_result_is_published() {
        // The load began half a second behind the watch.
        let began = Duration::from_millis(500);
        let schedule = Schedule::new(1_000, Duration::from_secs(2));
        let seconds = Duration::from_secs;
        let samples = [(0, 0), (1, 400), (2, 1_900), (3, 2_000)].map(|(at, published)| Sample {
            at: seconds(at) + began,
            published,
        });
        let before = Sample {
            at: Duration::from_millis(300),
            published: 0,
        };
        let seen = since(&[&[before], &samples[..]].concat(), began);
        let expected = [(0, 0), (1, 600), (2, 100), (3, 0)].map(|(at, many)| (seconds(at), many));
        assert_eq!(backlogs(&seen, schedule), expected);
    }

    #[test]
    fn the_rate_of_a_span_is_that_of_the_results() {
        let all = samples(20, 10_000);
        let second_half = between(&all, Duration::from_secs(10), Duration::from_secs(20));
        let rate = published_per_second(&second_half);
        assert!((9_990.0..10_010.0).contains(&rate), "{rate}");
    }
}
