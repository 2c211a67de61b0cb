//! The sections of a run. Each has a stack of its own.

mod batches;
mod drain;
mod frame;
mod idle;
mod intake;
mod memory;
mod parked;
mod poison;
mod sustained;

use tokio::fs;

use crate::{
    report::{Report, Section},
    settings::{RunSettings, SectionName},
};
pub use drain::drain;
pub use frame::{Frame, begin};

/// Runs the sections that are asked for, and writes the report.
pub async fn run(settings: &RunSettings) -> anyhow::Result<Report> {
    let title = if settings.quick {
        "Postonce benchmark, QUICK (short loads: rough figures)"
    } else {
        "Postonce benchmark"
    };
    fs::create_dir_all(&settings.places.report_dir).await?;
    let mut report = begin(title).await?;
    let mut sustained = None;
    for name in &settings.sections {
        let section = one(*name, settings, &mut sustained).await?;
        report.sections.push(section);
        // After each, so that an interrupted run leaves what it has.
        report.write(&settings.places.report_dir, "report").await?;
    }
    memory::judge(&mut report.sections);
    report.write(&settings.places.report_dir, "report").await?;
    Ok(report)
}

/// The sustained rate is handed from its section to the one that is compared with it.
async fn one(
    name: SectionName,
    settings: &RunSettings,
    sustained: &mut Option<f64>,
) -> anyhow::Result<Section> {
    match name {
        SectionName::Intake => intake::run(settings).await,
        SectionName::Sustained => sustained::run(settings, sustained).await,
        SectionName::HotAccount => sustained::run_hot(settings, *sustained).await,
        SectionName::Batches => batches::run(settings).await,
        SectionName::Idle => idle::run(settings).await,
        SectionName::Drain => drain::run(settings).await,
        SectionName::Poison => poison::run(settings, *sustained).await,
        SectionName::Parked => parked::run(settings).await,
    }
}
