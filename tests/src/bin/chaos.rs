//! `make chaos`: faults against the real services, and a checker that finds what is wrong.

use std::{
    env, fs,
    panic::AssertUnwindSafe,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use clap::{Parser, Subcommand, ValueEnum};
use e2e::{
    chaos::{
        Cast, Isolation, Mutant, Outcome, Plan, Report, measure_recovery, mutants, run_round,
        schedule,
    },
    remove_left_over,
};
use futures_util::{FutureExt, future::join_all};

/// Decides what chance is left in the round that `make test` runs.
const SELECTION_SEED: u64 = 20_261_121;
/// Faults of a round, if nobody says otherwise.
const FAULTS_PER_ROUND: usize = 30;
/// How many scenarios of mutants are played at a time.
const PLAYED_AT_ONCE: usize = 3;

/// The fault suite
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Rounds of faults until so many have happened
    Run {
        /// Faults that have to happen, and not only be tried: of a round's some find nothing to hit, so
        /// that as many as a round has usually take two rounds. A round that was begun is played to its end
        #[arg(long, env = "FAULTS", default_value_t = 500)]
        faults: u32,
        /// Decides the schedule; made up and printed if it is not given
        #[arg(long, env = "SEED")]
        seed: Option<u64>,
        /// The worker's isolation level; both take turns, round by round
        #[arg(long, env = "ISOLATION", value_enum, default_value_t = Levels::Both)]
        isolation: Levels,
        /// The first round, to go on or to see one again
        #[arg(long, env = "ROUND", default_value_t = 0)]
        round: usize,
        /// Faults of a round; it is part of what the seed decides
        #[arg(long, env = "FAULTS_PER_ROUND", default_value_t = FAULTS_PER_ROUND)]
        faults_per_round: usize,
    },
    /// One round of fixed faults, and all mutations: what `make test` runs
    Selection,
    /// Breaks each rule once, and shows that the checker notices
    Mutations {
        /// Runs each scenario without its mutation, too, and the mutant that needs a fault without it:
        /// then nothing may be wrong
        #[arg(long)]
        control: bool,
        /// Only this one
        #[arg(long)]
        only: Option<String>,
    },
    /// Measures how long it takes until payments are posted again behind a kill
    Recovery,
    /// Prints the faults of a round
    Schedule {
        /// The seed
        #[arg(long, env = "SEED", default_value_t = SELECTION_SEED)]
        seed: u64,
        /// The round
        #[arg(long, env = "ROUND", default_value_t = 0)]
        round: usize,
        /// Faults of a round
        #[arg(long, env = "FAULTS_PER_ROUND", default_value_t = FAULTS_PER_ROUND)]
        faults_per_round: usize,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Levels {
    Both,
    Serializable,
    ReadCommitted,
}

impl Levels {
    fn of_round(self, round: usize) -> Isolation {
        match self {
            Self::ReadCommitted => Isolation::ReadCommitted,
            Self::Both if !round.is_multiple_of(2) => Isolation::ReadCommitted,
            Self::Serializable | Self::Both => Isolation::Serializable,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let clean = match cli.command {
        Command::Run {
            faults,
            seed,
            isolation,
            round,
            faults_per_round,
        } => {
            let seed = seed.unwrap_or_else(made_up);
            run(seed, faults, isolation, round, faults_per_round).await
        }
        Command::Selection => selection().await,
        Command::Mutations { control, only } => {
            let only = only.as_deref();
            let chosen = |mutant: Mutant, cast| {
                only.is_none_or(|name| mutant.name() == name) && (control || cast == Cast::Mutant)
            };
            as_expected(chosen).await
        }
        Command::Recovery => {
            remove_left_over(Duration::ZERO).await;
            let table = measure_recovery().await;
            println!("{table}");
            save("recovery.md", &table);
            true
        }
        Command::Schedule {
            seed,
            round,
            faults_per_round,
        } => {
            for planned in schedule(seed, round, faults_per_round) {
                println!(
                    "{:>7} ms  {} ms  {}",
                    planned.at_ms, planned.lasts_ms, planned.fault
                );
            }
            true
        }
    };
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn made_up() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// Rounds until so many faults have happened, or until something is wrong.
async fn run(seed: u64, faults: u32, levels: Levels, first: usize, per_round: usize) -> bool {
    let mut report = Report::default();
    for round in first.. {
        if report.faults() >= faults {
            break;
        }
        let plan = Plan {
            seed,
            round,
            faults: Some(per_round),
            isolation: levels.of_round(round),
        };
        if !play(plan, &mut report).await {
            break;
        }
    }
    let text = report.markdown();
    println!("\n{text}");
    save("report.md", &text);
    report.is_clean()
}

/// Plays a round; a panic in it is one more wrong.
async fn play(plan: Plan, report: &mut Report) -> bool {
    println!("chaos: {plan}");
    remove_left_over(Duration::ZERO).await;
    let began = Instant::now();
    let mut outcome = caught(run_round(plan))
        .await
        .unwrap_or_else(|wrong| Outcome {
            wrongs: vec![wrong],
            ..Outcome::default()
        });
    outcome.took = began.elapsed();
    let faults: u32 = outcome.done.values().sum();
    println!(
        "chaos: {faults} faults, {} acknowledged, {} wrongs, {} s",
        outcome.acknowledged,
        outcome.wrongs.len(),
        outcome.took.as_secs()
    );
    let clean = outcome.wrongs.is_empty();
    let file = |what: &str| format!("{}-{}-{what}.log", plan.seed, plan.round);
    save(&file("timeline"), &(outcome.timeline.join("\n") + "\n"));
    if !clean {
        save(&file("services"), &outcome.logs);
        let shown = outcome.wrongs.iter().take(20);
        shown.for_each(|wrong| println!("WRONG: {wrong}"));
        println!("again: {}", again(plan));
    }
    report.add(plan, outcome);
    clean
}

/// The command that plays a round again.
fn again(plan: Plan) -> String {
    let Some(faults) = plan.faults else {
        return "infra/local/chaos.sh selection".to_owned();
    };
    format!(
        "make chaos SEED={} ROUND={} ISOLATION={} FAULTS_PER_ROUND={faults} FAULTS=1",
        plan.seed,
        plan.round,
        plan.isolation.as_str(),
    )
}

async fn selection() -> bool {
    let plan = Plan {
        seed: SELECTION_SEED,
        round: 0,
        faults: None,
        isolation: Isolation::Serializable,
    };
    let clean = play(plan, &mut Report::default()).await;
    clean & as_expected(Mutant::is_selected).await
}

/// Plays what is chosen of all scenarios, some at a time: mutants have to be noticed, and controls not.
async fn as_expected(chosen: impl Fn(Mutant, Cast) -> bool) -> bool {
    let all = mutants().into_iter().flat_map(|mutant| {
        let casts = mutant.casts().into_iter();
        casts.map(move |cast| (mutant, cast))
    });
    let plays: Vec<_> = all
        .filter(|(mutant, cast)| chosen(*mutant, *cast))
        .collect();
    let mut right = true;
    for some in plays.chunks(PLAYED_AT_ONCE) {
        let runs = some.iter().map(|(mutant, cast)| caught(mutant.play(*cast)));
        for ((mutant, cast), wrongs) in some.iter().zip(join_all(runs).await) {
            right &= is_as_expected(*mutant, *cast, &wrongs);
        }
    }
    right
}

/// Whether a scenario showed what it has to. One that did not come to its end shows nothing.
fn is_as_expected(mutant: Mutant, cast: Cast, wrongs: &Result<Vec<String>, String>) -> bool {
    let name = mutant.name();
    match wrongs {
        Ok(wrongs) if cast == Cast::Mutant => {
            let given_away = mutant.given_away_by(wrongs);
            let words = given_away.map_or_else(|| format!("{wrongs:?}"), Clone::clone);
            println!(
                "{cast:11} {name}: noticed: {}: {words:.300}",
                given_away.is_some()
            );
            given_away.is_some()
        }
        Ok(wrongs) => {
            println!(
                "{cast:11} {name}: clean: {}: {wrongs:.300?}",
                wrongs.is_empty()
            );
            wrongs.is_empty()
        }
        Err(failed) => {
            println!("{cast:11} {name}: {failed}");
            false
        }
    }
}

/// What comes of work, or with what words it panicked.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let panic = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => return Ok(done),
        Err(panic) => panic,
    };
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    Err(format!(
        "the suite itself failed: {}",
        words.unwrap_or("a panic")
    ))
}

/// Keeps something beside the instance's data.
fn save(name: &str, text: &str) {
    let folder = env::var_os("CHAOS_REPORT_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let path = folder.join(name);
    match fs::write(&path, text) {
        Ok(()) => {}
        Err(error) => println!("chaos: could not write {}: {error}", path.display()),
    }
}
