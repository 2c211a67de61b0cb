//! The benchmark's program: it reads what to measure, measures, and ends with code 1 if a ledger was
//! wrong.

use std::{process::ExitCode, time::Duration};

use bench::settings::{Command, Settings};
use clap::Parser;
use e2e::remove_left_over;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let settings = Settings::parse();
    // The instance is the benchmark's own: whatever lies there was left by a run that was killed.
    remove_left_over(Duration::ZERO).await;
    let report = match settings.command {
        Command::Run(settings) => bench::sections::run(&settings).await?,
        Command::Growth(settings) => bench::growth::run(&settings).await?,
    };
    println!("{}", report.markdown());
    let wrongs = report.wrongs();
    for wrong in &wrongs {
        eprintln!("WRONG LEDGER: {wrong}");
    }
    Ok(ExitCode::from(u8::from(!wrongs.is_empty())))
}
