//! What is printed at the end, and kept as JSON.

mod files;
mod markdown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    ledger::Findings,
    system::{Machine, Part, PeakMemory},
};

/// Everything that a run has found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub title: String,
    /// Where.
    pub machine: Machine,
    /// The sections, in the order in which they ran.
    pub sections: Vec<Section>,
}

/// One section of a run: it had a stack of its own.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// The median of fdatasync before it, in milliseconds.
    pub fdatasync_ms: f64,
    /// Its lines of the table of results.
    pub rows: Vec<Row>,
    /// What transactions have cost in it.
    pub costs: Vec<Cost>,
    /// Memory at its end, in KiB.
    pub memory_kib: PeakMemory,
    /// What the check of its ledger has found.
    pub ledger: Findings,
    /// What a reader should know of it.
    pub notes: Vec<String>,
}

/// A line of the table of results.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What it should be, in words; empty where nothing is said.
    pub budget: String,
    /// What it is, in words.
    pub measured: String,
    /// The same as a number, for programs.
    pub value: f64,
    /// Whether it is as it should be.
    pub met: Option<bool>,
}

/// What a transaction has cost in a measured window.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What was done in the window.
    pub what: String,
    /// How many transactions.
    pub transactions: u64,
    /// How long it was.
    pub seconds: f64,
    /// CPU time a transaction, in microseconds.
    pub cpu_us: BTreeMap<Part, f64>,
    /// Bytes of WAL a transaction.
    pub wal_bytes: f64,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Nothing is said.
    None,
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Budget {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::None => None,
            Self::AtLeast(least) => Some(value >= least),
            Self::AtMost(most) => Some(value <= most),
        }
    }
}

impl Row {
    /// A figure with its unit and budget.
    #[must_use]
    pub fn new(what: impl Into<String>, value: f64, unit: &str, budget: Budget) -> Self {
        let budget_words = match budget {
            Budget::None => String::new(),
            Budget::AtLeast(least) => format!(">= {}{unit}", number(least)),
            Budget::AtMost(most) => format!("<= {}{unit}", number(most)),
        };
        Self {
            what: what.into(),
            budget: budget_words,
            measured: format!("{}{unit}", number(value)),
            value,
            met: budget.is_met(value),
        }
    }

    /// The same with other words for the figure.
    #[must_use]
    pub fn saying(mut self, words: String) -> Self {
        self.measured = words;
        self
    }

    /// The same with a remark behind the figure.
    #[must_use]
    pub fn with(mut self, remark: &str) -> Self {
        self.measured = format!("{} {remark}", self.measured);
        self
    }
}

impl Report {
    /// What is wrong with the ledgers, with the section's name.
    #[must_use]
    pub fn wrongs(&self) -> Vec<String> {
        let wrongs = |section: &Section| {
            let name = section.name.clone();
            let wrongs = section.ledger.wrongs.clone().into_iter();
            wrongs.map(move |wrong| format!("{name}: {wrong}"))
        };
        self.sections.iter().flat_map(wrongs).collect()
    }
}

/// A number for people: whole with thousands apart where it is large, with decimals where small.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
