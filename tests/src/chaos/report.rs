use std::{collections::BTreeMap, fmt::Write, time::Duration};

use super::round::{Outcome, Plan};

/// What came of all rounds so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    rounds: Vec<(Plan, Outcome)>,
}

impl Report {
    /// Adds a round.
    pub fn add(&mut self, plan: Plan, outcome: Outcome) {
        self.rounds.push((plan, outcome));
    }

    /// How many faults happened.
    #[must_use]
    pub fn faults(&self) -> u32 {
        let counts = self
            .rounds
            .iter()
            .flat_map(|(_, outcome)| outcome.done.values());
        counts.sum()
    }

    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rounds
            .iter()
            .all(|(_, outcome)| outcome.wrongs.is_empty())
    }

    /// As Markdown: the sum, the counts of each kind of fault, and each round.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let outcomes = || self.rounds.iter().map(|(_, outcome)| outcome);
        let took: Duration = outcomes().map(|outcome| outcome.took).sum();
        let wrongs: usize = outcomes().map(|outcome| outcome.wrongs.len()).sum();
        let acknowledged: usize = outcomes().map(|outcome| outcome.acknowledged).sum();
        let seed = self.rounds.first().map_or(0, |(plan, _)| plan.seed);
        let _ = writeln!(
            text,
            "Seed {seed}: {} faults in {} rounds, {} min {} s, {acknowledged} acknowledged transactions, \
             {wrongs} wrongs.\n",
            self.faults(),
            self.rounds.len(),
            took.as_secs() / 60,
            took.as_secs() % 60,
        );
        text.push_str("| fault | happened | could not |\n|---|---|---|\n");
        for (fault, (done, skipped)) in self.counts() {
            let _ = writeln!(text, "| {fault} | {done} | {skipped} |");
        }
        text.push_str(
            "\n| round | isolation | faults | acknowledged | processed | failed | dead-lettered | replayed \
             | discarded | wrongs | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for (plan, outcome) in &self.rounds {
            let _ = writeln!(text, "{}", row(plan, outcome));
        }
        text
    }

    /// Each kind of fault: how often it happened, and how often it could not.
    fn counts(&self) -> BTreeMap<&str, (u32, u32)> {
        let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for (_, outcome) in &self.rounds {
            for (fault, count) in &outcome.done {
                counts.entry(fault).or_default().0 += count;
            }
            for (fault, count) in &outcome.skipped {
                counts.entry(fault).or_default().1 += count;
            }
        }
        counts
    }
}

fn row(plan: &Plan, outcome: &Outcome) -> String {
    let (processed, failed, dead_lettered) = outcome.ends;
    let (replayed, discarded) = outcome.cleared;
    format!(
        "| {} | {} | {} | {} | {processed} | {failed} | {dead_lettered} | {replayed} | {discarded} | {} | {} |",
        plan.round,
        plan.isolation.as_str(),
        outcome.done.values().sum::<u32>(),
        outcome.acknowledged,
        outcome.wrongs.len(),
        outcome.took.as_secs(),
    )
}
