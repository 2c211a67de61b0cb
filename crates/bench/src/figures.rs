//! Counts and times as the fractions that a report shows.

use std::time::Duration;

/// A count as a float; exact up to 2^53, and nothing here counts that far.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark stay below 2^53"
)]
#[must_use]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// A length as the count it is.
#[must_use]
pub fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// How many a second; 0 if no time has passed.
#[must_use]
pub fn per_second(count: u64, took: Duration) -> f64 {
    let seconds = took.as_secs_f64();
    if seconds > 0.0 {
        float(count) / seconds
    } else {
        0.0
    }
}

/// A rate as a whole number of transactions a second, never below 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range before"
)]
#[must_use]
pub fn whole_rate(rate: f64) -> u32 {
    rate.clamp(1.0, f64::from(u32::MAX)) as u32
}

/// A duration in whole microseconds.
#[must_use]
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds as milliseconds.
#[must_use]
pub fn millis(micros: u64) -> f64 {
    float(micros) / 1_000.0
}
