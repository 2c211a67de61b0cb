//! The highest offered rate at which the backlog does not grow.
//!
//! The backlog is what was due by the schedule of an open loop and whose result the broker has not
//! acknowledged yet, by the publishers' own counters. A request that waits in the generator for a free
//! connection is part of it: an api that accepts more slowly than it is asked cannot hide that. A
//! rate is sustained if, in a trial at that rate,
//!
//! 1. every transaction that was offered was accepted: one that was refused, never answered or never
//!    sent fails the trial;
//! 2. the backlog does not grow: its slope, by least squares over the last two thirds of the trial,
//!    is below 1% of the rate (1% times 30 s through its length, if it is shorter than 30 s: the
//!    noise in it is larger);
//! 3. everything is finished within 3 s of the end, also what still waited to be sent then.
//!
//! The first trial is at an estimate. Each that fails is followed by one that is 4%, then 8%, then 12%
//! lower and so on, or at the rate of results in it if that is lower still, until one holds. If the
//! first holds, the rate is raised by 4%, 8%, 16% and so on until one fails. Then the gap is halved
//! until it is at most 4%, or no trials are left. The rate that counts is the highest that held.

#[cfg(test)]
mod tests;
mod trial;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    backlog::{Watch, accepted, between, published, published_per_second, since},
    figures::{count, whole_rate},
    load::{OpenLoop, Pace, Schedule, Tally, Window},
    report::{Budget, Cost, Row},
    rig::Rig,
    settings::SearchSettings,
};
pub use trial::Trial;

/// By how much the rate changes at first, and how large a gap may stay between a rate that held and one
/// that failed.
const STEP: f64 = 0.04;

/// What a search has found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The trials, in their order.
    pub trials: Vec<Trial>,
    /// What a transaction has cost in the trial that counts: the best that held, or the last.
    pub cost: Option<Cost>,
}

impl Found {
    /// The highest rate that was sustained; none if no trial held.
    #[must_use]
    pub fn rate(&self) -> Option<u32> {
        let held = self.trials.iter().filter(|trial| trial.holds());
        held.map(|trial| trial.rate).max()
    }

    /// The trial that counts: the best that held, or the last.
    #[must_use]
    pub fn trial(&self) -> Option<&Trial> {
        let rate = self.rate();
        let best = self.trials.iter().find(|trial| Some(trial.rate) == rate);
        best.or(self.trials.last())
    }

    /// The line of the report for it. Where no trial held, the figure is 0 and the words say more.
    #[must_use]
    pub fn row(&self, what: &str, budget: Budget) -> Row {
        let row = Row::new(
            what,
            f64::from(self.rate().unwrap_or_default()),
            "/s",
            budget,
        );
        match (self.rate(), self.trials.last()) {
            (None, Some(last)) => row.saying(format!("below {}/s", last.rate)),
            _ => row,
        }
    }

    /// Adds a trial, and answers at which rate the next is worth while.
    fn add(&mut self, trial: Trial, cost: Cost) -> Option<u32> {
        if trial.holds() || self.rate().is_none() {
            self.cost = Some(cost);
        }
        let (rate, results) = (f64::from(trial.rate), trial.published_rate);
        self.trials.push(trial);
        let next = match (
            self.rate().map(f64::from),
            self.lowest_failed().map(f64::from),
        ) {
            (None, _) => (rate * (1.0 - self.lowering())).min(results),
            (Some(held), None) => held * (1.0 + self.raise()),
            (Some(held), Some(failed)) if failed * (1.0 - STEP) > held => {
                f64::midpoint(held, failed)
            }
            (Some(_), Some(_)) => return None,
        };
        Some(whole_rate(next))
    }

    fn lowest_failed(&self) -> Option<u32> {
        let failed = self.trials.iter().filter(|trial| !trial.holds());
        failed.map(|trial| trial.rate).min()
    }

    /// By how much a rate is lowered that failed, as those before it did: by one step more each time.
    fn lowering(&self) -> f64 {
        self.trials.iter().map(|_| STEP).sum()
    }

    /// By how much a rate is raised that held: twice as much each time.
    fn raise(&self) -> f64 {
        let times = self.trials.iter().skip(1).map(|_| 2.0);
        times.product::<f64>() * STEP
    }
}

/// Looks for it on a rig whose services all run.
pub async fn find(rig: &mut Rig, what: &str, settings: SearchSettings) -> anyhow::Result<Found> {
    let estimate = estimate(rig, what, settings).await?;
    say(what, &format!("estimate {estimate:.0}/s"));
    let mut next = Some(whole_rate(estimate));
    let mut found = Found::default();
    while let Some(rate) = next.filter(|_| found.trials.len() < settings.trials_max) {
        let (trial, cost) = steady(rig, what, rate, settings).await?;
        say(what, &trial.words());
        next = found.add(trial, cost);
    }
    Ok(found)
}

/// The rate of published results under a load that is as high as it can be without making more than
/// a small backlog; over the second half of it.
async fn estimate(rig: &mut Rig, what: &str, settings: SearchSettings) -> anyhow::Result<f64> {
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
    say_refusals(what, &tally);
    all_published(rig).await?;
    Ok(published_per_second(&samples))
}

/// A trial at a constant rate, and what a transaction has cost in it.
pub async fn steady(
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
    let (answered, started) = (Instant::now(), watch.elapsed().saturating_sub(tally.took));
    let acknowledged = count(tally.acknowledged.len());
    rig.expected.add(&tally);
    say_refusals(what, &tally);
    all_published(rig).await?;
    let finished_after = tally.took.saturating_sub(schedule.lasts()) + answered.elapsed();
    let what = format!("{what}, {rate}/s");
    let cost = rig.cost(&what, &window, acknowledged).await?;
    let samples = since(&watch.samples(), started);
    let trial = Trial::judge(schedule, &tally, &samples, finished_after);
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
    let goal = accepted(rig.services())
        .await
        .saturating_sub(rig.expected.dead_lettered);
    let results = async |rig: &Rig| published(rig.services(), &rig.stack.results_topic).await;
    rig.reach("results published", goal, results).await
}

fn say_refusals(what: &str, tally: &Tally) {
    if let Some(first) = &tally.first_refusal {
        say(what, &format!("{} refused, first: {first}", tally.refused));
    }
}

/// Progress goes to standard error: standard output is the report's.
fn say(what: &str, words: &str) {
    eprintln!("    {what}: {words}");
}
