use std::fmt::Write;

use super::{Cost, Report, Section, number};
use crate::system::{Part, PeakMemory};

impl Report {
    /// The report for people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n", self.title, self.machine_line());
        self.results(&mut text);
        self.costs(&mut text);
        self.memory(&mut text);
        self.ledgers(&mut text);
        text
    }

    fn machine_line(&self) -> String {
        let m = &self.machine;
        format!(
            "{} cores ({}), {} GiB, Linux {}, PostgreSQL {}, Kafka {}, commit {}; {}.",
            m.cores,
            m.cpu,
            m.memory_gib,
            m.kernel,
            m.postgresql,
            m.kafka,
            m.commit,
            self.fdatasync()
        )
    }

    /// Beside every table, because every acknowledgement waits for the disk.
    fn fdatasync(&self) -> String {
        let medians = || self.sections.iter().map(|section| section.fdatasync_ms);
        let least = medians().fold(f64::INFINITY, f64::min);
        let most = medians().fold(0.0, f64::max);
        format!("fdatasync of 8 KiB, median by section: {least:.3} to {most:.3} ms")
    }

    fn table(&self, text: &mut String, heading: &str, columns: &[&str]) {
        line(text, &format!("\n## {heading}\n\n{}.\n", self.fdatasync()));
        row(text, columns.iter().map(|column| (*column).to_owned()));
        row(text, columns.iter().map(|_| "---".to_owned()));
    }

    fn results(&self, text: &mut String) {
        self.table(text, "Results", &["what", "budget", "measured", "met"]);
        for found in self.sections.iter().flat_map(|section| &section.rows) {
            let met = match found.met {
                None => "",
                Some(true) => "yes",
                Some(false) => "**no**",
            };
            let cells = [&*found.what, &*found.budget, &*found.measured, met];
            row(text, cells.map(str::to_owned));
        }
        for section in &self.sections {
            for note in &section.notes {
                line(text, &format!("\n- {}: {note}", section.name));
            }
        }
    }

    fn costs(&self, text: &mut String) {
        let names = Part::ALL.map(Part::name);
        let mut columns = vec!["CPU us a transaction"];
        columns.extend(names);
        columns.extend(["all", "WAL bytes", "transactions", "seconds"]);
        self.table(text, "What a transaction costs", &columns);
        for cost in self.sections.iter().flat_map(|section| &section.costs) {
            row(text, cost.cells());
        }
    }

    fn memory(&self, text: &mut String) {
        let mut columns = vec!["MiB"];
        columns.extend(MEMORY_PARTS.map(Part::name));
        let heading = "Memory: the services' and the broker's peak of resident memory, \
                       PostgreSQL's proportional shares at the end";
        self.table(text, heading, &columns);
        for section in &self.sections {
            let cells = MEMORY_PARTS.map(|part| mib(&section.memory_kib, part));
            row(text, [section.name.clone()].into_iter().chain(cells));
        }
    }

    fn ledgers(&self, text: &mut String) {
        let columns = ["section", "transactions", "rejected", "verdict"];
        self.table(text, "The ledgers, checked behind each section", &columns);
        for section in &self.sections {
            row(text, section.ledger_cells());
        }
    }
}

/// Whose memory is shown: the generator's is full of what it remembers.
const MEMORY_PARTS: [Part; 5] = [
    Part::Api,
    Part::Publisher,
    Part::Worker,
    Part::Postgresql,
    Part::Broker,
];

impl Cost {
    fn cells(&self) -> Vec<String> {
        let parts = Part::ALL.map(|part| self.cpu_us.get(&part));
        let cells = parts.map(|us| us.map_or_else(String::new, |us| format!("{us:.1}")));
        let all = parts.into_iter().flatten().sum::<f64>();
        let mut row = vec![self.what.clone()];
        row.extend(cells);
        row.push(format!("{all:.1}"));
        row.push(number(self.wal_bytes));
        row.push(number(crate::figures::float(self.transactions)));
        row.push(format!("{:.1}", self.seconds));
        row
    }
}

impl Section {
    fn ledger_cells(&self) -> [String; 4] {
        let found = &self.ledger;
        let verdict = if found.wrongs.is_empty() {
            "right".to_owned()
        } else {
            format!("**WRONG**: {}", found.wrongs.join("; "))
        };
        [
            self.name.clone(),
            found.transactions.to_string(),
            found.rejected.to_string(),
            verdict,
        ]
    }
}

fn mib(memory: &PeakMemory, part: Part) -> String {
    let kib = memory.get(&part);
    kib.map_or_else(String::new, |kib| kib.div_ceil(1024).to_string())
}

fn row(text: &mut String, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<_> = cells.into_iter().collect();
    line(text, &format!("| {} |", cells.join(" | ")));
}

fn line(text: &mut String, content: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{content}");
}
