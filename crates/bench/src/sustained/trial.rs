use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::interval;

use crate::{
    backlog::{Sample, Watch, backlogs, between, published_per_second, slope},
    figures::count,
    load::{GRACE, Schedule, Tally},
};

/// How fast the backlog may grow, as a share of the rate, in trials of at least this length.
const SLOPE_SHARE_MAX: f64 = 0.01;
const LONG_TRIAL: Duration = Duration::from_secs(30);
/// When everything must be finished, counted from the end of the load: as long as what was due may
/// still be sent.
const FINISHED_WITHIN: Duration = GRACE;
/// A backlog of so many seconds of the rate is hopeless: the trial is ended early.
const HOPELESS: Duration = Duration::from_secs(4);
/// How often the backlog is looked at for that.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A load at a constant rate, and what the backlog did meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Transactions offered a second.
    pub rate: u32,
    /// Transactions offered in a trial of full length.
    pub offered: u64,
    /// Transactions accepted of them.
    pub accepted: u64,
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
    /// Looks at what was seen; samples and schedule count their time from the load's start.
    #[must_use]
    pub fn judge(
        schedule: Schedule,
        tally: &Tally,
        samples: &[Sample],
        finished_after: Duration,
    ) -> Self {
        let (rate, lasted) = (schedule.per_second(), tally.took.min(schedule.lasts()));
        let within = between(samples, lasted / 3, lasted);
        let backlog = |samples: &[Sample]| backlogs(samples, schedule);
        Self {
            rate,
            offered: schedule.requests(),
            accepted: count(tally.acknowledged.len()),
            published_rate: published_per_second(&within),
            slope: slope(&backlog(&within)),
            slope_max: f64::from(rate) * SLOPE_SHARE_MAX * noise(schedule.lasts()),
            backlog_max: backlog(&between(samples, Duration::ZERO, lasted))
                .into_iter()
                .map(|(_, many)| many)
                .max()
                .unwrap_or(0),
            finished_after,
            p50_ms: tally.percentile_ms(50.0),
            p99_ms: tally.percentile_ms(99.0),
        }
    }

    /// Whether the rate is sustained (the rules stand at the head of the module above). A trial that
    /// was ended early has not had all its transactions accepted.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.accepted >= self.offered
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
            "{}/s {verdict}: accepted {} of {}, results {:.0}/s, backlog grew {:.1}/s (allowed {:.1}, \
             largest {}), finished {:.1} s after the end, p50 {:.1} ms, p99 {:.1} ms",
            self.rate,
            self.accepted,
            self.offered,
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
    let mut load = pin!(load);
    let mut ticks = interval(LOOK_EVERY);
    loop {
        tokio::select! {
            tally = &mut load => return tally,
            _ = ticks.tick() => {
                if is_hopeless(&watch.samples(), schedule) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

/// By the last sample. Its time counts from the watch's start, which is earlier than the load's by what
/// it takes to connect: little against what is hopeless.
fn is_hopeless(samples: &[Sample], schedule: Schedule) -> bool {
    let last = samples.last().map(std::slice::from_ref).unwrap_or_default();
    let limit = u64::from(schedule.per_second()) * HOPELESS.as_secs();
    backlogs(last, schedule)
        .iter()
        .any(|(_, backlog)| *backlog > limit)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn trial() -> Trial {
        Trial {
            rate: 10_000,
            offered: 600_000,
            accepted: 600_000,
            published_rate: 9_998.0,
            slope: 40.0,
            slope_max: 100.0,
            backlog_max: 900,
            finished_after: Duration::from_millis(300),
            p50_ms: 4.0,
            p99_ms: 20.0,
        }
    }

    /// Five samples a second: results by the tenth of a second in which they are looked at.
    fn samples(lasted: Duration, published: impl Fn(u64) -> u64) -> Vec<Sample> {
        let tenths = u64::try_from(lasted.as_millis() / 100).unwrap();
        (0..tenths)
            .step_by(2)
            .map(|tenth| Sample {
                at: Duration::from_millis(tenth * 100),
                published: published(tenth),
            })
            .collect()
    }

    /// A trial at 10,000/s that lasted so long.
    fn judged(lasted: Duration, samples: &[Sample]) -> Trial {
        let schedule = Schedule::new(10_000, MINUTE);
        let accepted = usize::try_from(schedule.due_by(lasted)).unwrap();
        let tally = Tally {
            acknowledged: vec![Uuid::nil(); accepted],
            took: lasted,
            ..Tally::new()
        };
        Trial::judge(schedule, &tally, samples, Duration::ZERO)
    }

    #[test]
    fn each_rule_can_fail_a_trial() {
        assert!(trial().holds());
        let not_accepted = Trial {
            accepted: 599_999,
            ..trial()
        };
        let growing = Trial {
            slope: 101.0,
            ..trial()
        };
        let late = Trial {
            finished_after: Duration::from_millis(3_001),
            ..trial()
        };
        for failed in [not_accepted, growing, late] {
            assert!(!failed.holds(), "{}", failed.words());
        }
    }

    #[test]
    fn the_start_of_a_trial_does_not_count_for_its_slope() {
        // It fills up for 10 s and then stays.
        let filling = |tenth: u64| tenth * 1_000 - (tenth * 20).min(2_000);
        let trial = judged(MINUTE, &samples(MINUTE, filling));
        assert!(trial.slope.abs() < 1.0, "{}", trial.slope);
        assert_eq!(trial.backlog_max, 2_000);
        assert!(trial.holds(), "{}", trial.words());
    }

    #[test]
    fn what_waits_in_the_generator_is_backlog() {
        // Everything that is accepted is finished at once, but 2% less is accepted than was due.
        let trial = judged(MINUTE, &samples(MINUTE, |tenth| tenth * 980));
        assert!((199.0..201.0).contains(&trial.slope), "{}", trial.slope);
        assert!(!trial.holds(), "{}", trial.words());
    }

    #[test]
    fn a_hopeless_trial_ends_early_and_is_judged_by_the_time_it_had() {
        // 5,000/s of 10,000/s, so that 4 s of the rate are waiting after 8 s.
        let (half, lasted) = (|tenth| tenth * 500, Duration::from_millis(8_400));
        let schedule = Schedule::new(10_000, MINUTE);
        let seen = samples(lasted, half);
        assert!(!is_hopeless(&seen[..40], schedule), "after 7.8 s");
        assert!(is_hopeless(&seen, schedule), "after 8.2 s");
        let trial = judged(lasted, &seen);
        assert!((4_999.0..5_001.0).contains(&trial.published_rate));
        assert!(!trial.holds(), "{}", trial.words());
    }
}
