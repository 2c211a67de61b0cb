use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::interval;

use crate::{
    backlog::{Sample, Watch, between, published_per_second, slope},
    figures::{count, per_second},
    load::{Schedule, Tally},
};

/// The share of the offered rate that must have been accepted.
const ACCEPTED_SHARE_MIN: f64 = 0.995;
/// How fast the backlog may grow, as a share of the rate, in trials of at least this length.
const SLOPE_SHARE_MAX: f64 = 0.01;
const LONG_TRIAL: Duration = Duration::from_secs(30);
/// When everything must be finished, counted from the end of the load.
const FINISHED_WITHIN: Duration = Duration::from_secs(3);
/// A backlog of so many seconds of the rate is hopeless: the trial is ended early.
const HOPELESS_SECONDS: u64 = 4;
/// How often the backlog is looked at for that.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A load at a constant rate, and what the backlog did meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Transactions offered a second.
    pub rate: u32,
    /// Transactions accepted a second.
    pub accepted_rate: f64,
    /// Results published a second, over the last two thirds.
    pub published_rate: f64,
    /// By how much the backlog grew a second, over the last two thirds.
    pub slope: f64,
    /// By how much it may.
    pub slope_max: f64,
    /// The largest backlog.
    pub backlog_max: u64,
    /// When everything was finished, counted from the end of the load.
    pub finished_after: Duration,
    /// From the intended start of a request to its answer, in milliseconds.
    pub p50_ms: f64,
    /// The same.
    pub p99_ms: f64,
}

impl Trial {
    /// Looks at what was seen.
    #[must_use]
    pub fn judge(
        rate: u32,
        schedule: Schedule,
        tally: &Tally,
        samples: &[Sample],
        finished_after: Duration,
    ) -> Self {
        let within = between(samples, schedule.lasts() / 3, schedule.lasts());
        Self {
            rate,
            accepted_rate: per_second(count(tally.acknowledged.len()), schedule.lasts()),
            published_rate: published_per_second(&within),
            slope: slope(&within),
            slope_max: f64::from(rate) * SLOPE_SHARE_MAX * noise(schedule.lasts()),
            backlog_max: samples.iter().map(Sample::backlog).max().unwrap_or(0),
            finished_after,
            p50_ms: tally.percentile_ms(50.0),
            p99_ms: tally.percentile_ms(99.0),
        }
    }

    /// Whether the rate is sustained (the rules stand at the head of the module above).
    #[must_use]
    pub fn holds(&self) -> bool {
        let rate = f64::from(self.rate);
        self.accepted_rate >= rate * ACCEPTED_SHARE_MIN
            && self.slope < self.slope_max
            && self.finished_after <= FINISHED_WITHIN
    }

    /// For a line of the report.
    #[must_use]
    pub fn words(&self) -> String {
        let verdict = if self.holds() {
            "holds"
        } else {
            "does not hold"
        };
        format!(
            "{}/s {verdict}: accepted {:.0}/s, results {:.0}/s, backlog grew {:.1}/s (allowed {:.1}, \
             largest {}), finished {:.1} s after the end, p50 {:.1} ms, p99 {:.1} ms",
            self.rate,
            self.accepted_rate,
            self.published_rate,
            self.slope,
            self.slope_max,
            self.backlog_max,
            self.finished_after.as_secs_f64(),
            self.p50_ms,
            self.p99_ms
        )
    }
}

/// By how much noisier a short trial is than a long one.
fn noise(lasts: Duration) -> f64 {
    (LONG_TRIAL.as_secs_f64() / lasts.as_secs_f64().max(1.0)).max(1.0)
}

/// Waits for a load, and ends it early once the backlog is hopeless.
pub(super) async fn unless_hopeless(
    load: impl Future<Output = anyhow::Result<Tally>>,
    watch: &Watch,
    schedule: Schedule,
    stop: &AtomicBool,
) -> anyhow::Result<Tally> {
    let hopeless = schedule.requests() * HOPELESS_SECONDS / schedule.lasts().as_secs().max(1);
    let mut load = pin!(load);
    let mut ticks = interval(LOOK_EVERY);
    loop {
        tokio::select! {
            tally = &mut load => return tally,
            _ = ticks.tick() => {
                if watch.backlog() > hopeless {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial() -> Trial {
        Trial {
            rate: 10_000,
            accepted_rate: 9_999.0,
            published_rate: 9_998.0,
            slope: 40.0,
            slope_max: 100.0,
            backlog_max: 900,
            finished_after: Duration::from_millis(300),
            p50_ms: 4.0,
            p99_ms: 20.0,
        }
    }

    #[test]
    fn each_rule_can_fail_a_trial() {
        assert!(trial().holds());
        let not_accepted = Trial {
            accepted_rate: 9_949.0,
            ..trial()
        };
        let growing = Trial {
            slope: 101.0,
            ..trial()
        };
        let late = Trial {
            finished_after: Duration::from_secs(4),
            ..trial()
        };
        for failed in [not_accepted, growing, late] {
            assert!(!failed.holds(), "{}", failed.words());
        }
    }

    #[test]
    fn the_start_of_a_trial_does_not_count_for_its_slope() {
        // It fills up for 10 s and then stays.
        let samples: Vec<_> = (0..600_u64)
            .map(|tenth| Sample {
                at: Duration::from_millis(tenth * 100),
                accepted: tenth * 1_000,
                published: tenth * 1_000 - (tenth * 20).min(2_000),
            })
            .collect();
        let schedule = Schedule::new(10_000, Duration::from_mins(1));
        let trial = Trial::judge(10_000, schedule, &Tally::new(), &samples, Duration::ZERO);
        assert!(trial.slope.abs() < 1.0, "{}", trial.slope);
        assert_eq!(trial.backlog_max, 2_000);
    }
}
