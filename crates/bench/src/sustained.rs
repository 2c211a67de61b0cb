//! The highest offered rate at which the backlog does not grow.
//!
//! The backlog is what was accepted and whose result the broker has not acknowledged yet, by the
//! services' own counters. A rate is sustained if, in a trial at that rate in an open loop,
//!
//! 1. every request could be sent and was accepted: at least 99.5% of the offered rate;
//! 2. the backlog does not grow: its slope, by least squares over the last two thirds of the trial,
//!    is below 1% of the rate;
//! 3. everything is finished within 3 s of the end.
//!
//! The first trial is at 104% of an estimate. Each that fails is followed by one at 96% of its rate,
//! until one holds; if the first holds, the rate is raised by 4% until one fails.

mod trial;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    backlog::{Watch, accepted, between, published, published_per_second},
    figures::{count, whole_rate},
    load::{OpenLoop, Pace, Schedule, Window},
    report::Cost,
    rig::Rig,
    settings::SearchSettings,
};
pub use trial::Trial;

/// By how much the rate changes between trials.
const STEP: f64 = 0.04;

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The highest rate that was sustained; none if no trial held.
    pub rate: Option<u32>,
    /// The trials, in their order.
    pub trials: Vec<Trial>,
    /// What a transaction has cost in the trial that counts: the best that held, or the last.
    pub cost: Option<Cost>,
}

impl Found {
    /// The trial that counts.
    #[must_use]
    pub fn trial(&self) -> Option<&Trial> {
        let held = self.trials.iter().filter(|trial| trial.holds());
        held.max_by_key(|trial| trial.rate).or(self.trials.last())
    }

    /// The rate found, or 0.
    #[must_use]
    pub fn rate_or_zero(&self) -> f64 {
        f64::from(self.rate.unwrap_or_default())
    }
}

/// Looks for it on a rig whose services all run.
pub async fn find(rig: &mut Rig, what: &str, settings: SearchSettings) -> anyhow::Result<Found> {
    let estimate = estimate(rig, settings).await?;
    say(what, &format!("estimate {estimate:.0}/s"));
    let mut rate = whole_rate(estimate * (1.0 + STEP));
    let mut found = Found {
        rate: None,
        trials: Vec::new(),
        cost: None,
    };
    for _ in 0..settings.trials_max {
        let (trial, cost) = trial_at(rig, what, rate, settings).await?;
        say(what, &trial.words());
        let (held, first) = (trial.holds(), found.trials.is_empty());
        found.trials.push(trial);
        if held || found.rate.is_none() {
            found.cost = Some(cost);
        }
        match (held, found.rate.is_some() || first) {
            (true, goes_up) => {
                found.rate = Some(rate);
                if !goes_up {
                    break;
                }
                rate = whole_rate(f64::from(rate) * (1.0 + STEP));
            }
            (false, _) if found.rate.is_some() => break,
            (false, _) => rate = whole_rate(f64::from(rate) * (1.0 - STEP)),
        }
    }
    Ok(found)
}

/// The rate of published results under a load that is as high as it can be without making more than
/// a small backlog; over the second half of it.
async fn estimate(rig: &mut Rig, settings: SearchSettings) -> anyhow::Result<f64> {
    let lasts = Duration::from_secs(settings.estimate_seconds);
    let watch = watch(rig).await;
    let pace = Pace::Window(Window {
        limit: settings.estimate_backlog,
        finished: watch.published(),
        lasts,
    });
    let tally = load(rig, pace, settings, Arc::default()).run().await?;
    let samples = between(&watch.samples(), lasts / 2, lasts);
    rig.expected.add(&tally);
    refused(&tally)?;
    all_published(rig).await?;
    Ok(published_per_second(&samples))
}

async fn trial_at(
    rig: &mut Rig,
    what: &str,
    rate: u32,
    settings: SearchSettings,
) -> anyhow::Result<(Trial, Cost)> {
    let schedule = Schedule::new(rate, Duration::from_secs(settings.trial_seconds));
    let (watch, stop) = (watch(rig).await, Arc::<AtomicBool>::default());
    let window = rig.window().await?;
    let load = load(rig, Pace::Constant(schedule), settings, Arc::clone(&stop)).run();
    let tally = trial::unless_hopeless(load, &watch, schedule, &stop).await?;
    let ended = Instant::now();
    let acknowledged = count(tally.acknowledged.len());
    rig.expected.add(&tally);
    refused(&tally)?;
    all_published(rig).await?;
    let finished_after = ended.elapsed();
    let what = format!("{what}, {rate}/s");
    let cost = rig.cost(&what, &window, acknowledged).await?;
    let trial = Trial::judge(rate, schedule, &tally, &watch.samples(), finished_after);
    Ok((trial, cost))
}

fn load(rig: &Rig, pace: Pace, settings: SearchSettings, stop: Arc<AtomicBool>) -> OpenLoop {
    OpenLoop {
        target: rig.target.clone(),
        instructions: rig.instructions.clone(),
        connections: settings.open_loop_connections,
        pace,
        stop,
    }
}

async fn watch(rig: &Rig) -> Watch {
    Watch::start(rig.services(), &rig.stack.results_topic).await
}

async fn all_published(rig: &Rig) -> anyhow::Result<()> {
    let goal = accepted(rig.services()).await;
    let results = async |rig: &Rig| published(rig.services(), &rig.stack.results_topic).await;
    rig.reach("results published", goal, results).await
}

fn refused(tally: &crate::load::Tally) -> anyhow::Result<()> {
    match &tally.first_refusal {
        Some(refusal) => {
            say(
                "load",
                &format!("{} refused, first: {refusal}", tally.refused),
            );
            Ok(())
        }
        None => Ok(()),
    }
}

/// Progress goes to standard error: standard output is the report's.
fn say(what: &str, words: &str) {
    eprintln!("    {what}: {words}");
}
