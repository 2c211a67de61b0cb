use e2e::{Database, Kind};

use crate::{
    ledger,
    report::{Report, Section},
    rig::{Filling, Rig},
    settings::Places,
    system::{Machine, fdatasync_median},
};

/// What all sections have in common: a rig before, the check of the ledger behind.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The section's name.
    pub name: &'a str,
    /// What is in the tables at the start.
    pub filling: Filling,
    /// Which services run from the start, beside the api.
    pub services: &'a [Kind],
    /// Where files are put.
    pub places: &'a Places,
}

impl Filling {
    /// Accounts alone.
    #[must_use]
    pub fn accounts(accounts: usize) -> Self {
        Self {
            accounts,
            transactions: 0,
        }
    }
}

/// Begins a report.
pub async fn begin(title: &str) -> anyhow::Result<Report> {
    let database = Database::create().await;
    let machine = Machine::look(database.superuser()).await;
    database.drop().await;
    Ok(Report {
        title: title.to_owned(),
        machine: machine?,
        sections: Vec::new(),
    })
}

impl Frame<'_> {
    /// Runs a section: whatever becomes of it, its stack is taken down.
    pub async fn run(
        self,
        body: impl AsyncFnOnce(&mut Rig, &mut Section) -> anyhow::Result<()>,
    ) -> anyhow::Result<Section> {
        eprintln!("==> {}", self.name);
        let fdatasync = fdatasync_median(self.places.disk())?;
        let mut section = Section {
            name: self.name.to_owned(),
            fdatasync_ms: fdatasync.as_secs_f64() * 1_000.0,
            ..Section::default()
        };
        let mut rig = Rig::build(self.filling, self.places).await?;
        for kind in self.services {
            rig.start(*kind, 1).await;
        }
        let outcome = measure(&mut rig, &mut section, body).await;
        if outcome.is_err() {
            rig.stack.print_logs();
        }
        rig.stack.discard().await;
        outcome.map(|()| section)
    }
}

async fn measure(
    rig: &mut Rig,
    section: &mut Section,
    body: impl AsyncFnOnce(&mut Rig, &mut Section) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    body(rig, section).await?;
    section.memory_kib = rig.memory();
    if rig.expected.finished {
        rig.quiet().await?;
    }
    rig.expected.accepted_by_api = Some(rig.accepted_by_api().await?);
    section.ledger = ledger::check(&rig.stack, &rig.expected).await?;
    for wrong in &section.ledger.wrongs {
        eprintln!("    WRONG LEDGER: {wrong}");
    }
    rig.stack.stop().await;
    Ok(())
}
