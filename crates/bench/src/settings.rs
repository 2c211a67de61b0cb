//! What a run is told: flags, each with its unit and default.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures Postonce from HTTP to the published result, on PostgreSQL and Kafka of its own.
///
/// `make bench` brings both up and runs it. By hand it needs `DATABASE_URL`, the server's superuser, and
/// `KAFKA_BROKERS`; `KAFKA_PID_FILE` and `KAFKA_VERSION` tell it about the broker, `POSTONCE_BIN_DIR`
/// where the services' binaries lie if not beside its own.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Settings {
    /// What to measure
    #[command(subcommand)]
    pub command: Command,
}

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// The whole path, section by section
    Run(Box<RunSettings>),
    /// What changes as the tables grow, with the number of accounts, and with more services
    Growth(Box<GrowthSettings>),
}

/// Where files are put.
#[derive(Args, Clone, Debug)]
pub struct Places {
    /// The folder of the reports
    #[arg(long, env = "BENCH_REPORT_DIR", default_value = ".local/bench")]
    pub report_dir: PathBuf,

    /// A folder on the disk of PostgreSQL's data, to time fdatasync in [default: the report's]
    #[arg(long, env = "BENCH_DISK_DIR")]
    pub disk_dir: Option<PathBuf>,
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SectionName {
    /// Accepted over HTTP, publisher and worker stopped
    Intake,
    /// The highest rate at which the backlog does not grow
    Sustained,
    /// The same on one account
    HotAccount,
    /// Batches of 1,000, publisher and worker stopped
    Batches,
    /// From POST to PROCESSED on an idle system
    Idle,
    /// The worker on a backlog
    Drain,
    /// What events that cannot be applied cost the others; not among those that run by default
    Poison,
    /// The worker before a great many parked events; not among those that run by default
    Parked,
}

/// A run over all sections, in under 20 minutes; with `--quick` in about 3.
#[derive(Args, Clone, Debug)]
pub struct RunSettings {
    /// Shorter loads, for a look; the figures are rougher
    #[arg(long)]
    pub quick: bool,

    /// The sections to run
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "intake,batches,drain,sustained,hot-account,idle"
    )]
    pub sections: Vec<SectionName>,

    /// Accounts to post to
    #[arg(long, default_value_t = 10_000)]
    pub accounts: usize,

    /// Intake: numbers of connections that wrk is run with; empty for not at all [with --quick: 16,256]
    #[arg(
        long,
        value_delimiter = ',',
        num_args = 0..,
        default_value = "1,16,64,256",
        default_value_if("quick", "true", "16,256")
    )]
    pub connections: Vec<usize>,

    /// Intake: how long wrk runs with each number, in seconds [with --quick: 5]
    #[arg(long, default_value = "10", default_value_if("quick", "true", "5"))]
    pub capacity_seconds: u64,

    /// Intake: rate of the open loop, in requests a second
    #[arg(long, default_value_t = 15_000)]
    pub open_loop_rate: u32,

    /// Intake: how long the open loop runs, in seconds [with --quick: 8]
    #[arg(long, default_value = "20", default_value_if("quick", "true", "8"))]
    pub open_loop_seconds: u64,

    /// How the sustained rate is found.
    #[command(flatten)]
    pub search: SearchSettings,

    /// Batches: how long they are sent, in seconds [with --quick: 5]
    #[arg(long, default_value = "15", default_value_if("quick", "true", "5"))]
    pub batch_seconds: u64,

    /// Batches, and filling the drain's backlog: connections
    #[arg(long, default_value_t = 4)]
    pub batch_connections: usize,

    /// Idle: how many transactions are timed [with --quick: 300]
    #[arg(long, default_value = "500", default_value_if("quick", "true", "300"))]
    pub probes: u32,

    /// Drain: events in the backlog, in whole batches [with --quick: 100000]
    #[arg(
        long,
        default_value = "1000000",
        default_value_if("quick", "true", "100000")
    )]
    pub drain_transactions: u64,

    /// Parked: events that are parked
    #[arg(long, default_value_t = 1_000_000)]
    pub parked_events: u64,

    /// Where files are put.
    #[command(flatten)]
    pub places: Places,
}

/// How the highest rate that is sustained is found: an estimate under a load that waits for the
/// system, then trials at constant rates.
#[derive(Args, Clone, Copy, Debug)]
pub struct SearchSettings {
    /// Sustained: connections of the open loop
    #[arg(long, default_value_t = 256)]
    pub open_loop_connections: usize,

    /// Sustained: how long the estimate takes, in seconds [with --quick: 8]
    #[arg(long, default_value = "20", default_value_if("quick", "true", "8"))]
    pub estimate_seconds: u64,

    /// Sustained: most transactions accepted and not finished during the estimate
    #[arg(long, default_value_t = 12_000)]
    pub estimate_backlog: u64,

    /// Sustained: how long a trial at a constant rate takes, in seconds [with --quick: 10]
    #[arg(long, default_value = "60", default_value_if("quick", "true", "10"))]
    pub trial_seconds: u64,

    /// Sustained: most trials [with --quick: 3]
    #[arg(long, default_value = "5", default_value_if("quick", "true", "3"))]
    pub trials_max: usize,
}

/// The growth run: it fills the tables by SQL, takes up to 20 GB of disk, and removes it again.
#[derive(Args, Clone, Debug)]
pub struct GrowthSettings {
    /// Finished transactions in the tables, in the order of the table; the first is the base
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
    pub sizes: Vec<u64>,

    /// Accounts to post to
    #[arg(long, default_value_t = 10_000)]
    pub accounts: usize,

    /// Other numbers of accounts, measured at the base size
    #[arg(long, value_delimiter = ',', num_args = 0.., default_value = "1,100000")]
    pub other_accounts: Vec<usize>,

    /// Accepted: connections of wrk
    #[arg(long, default_value_t = 256)]
    pub connections: usize,

    /// Accepted: how long wrk runs, in seconds
    #[arg(long, default_value_t = 20)]
    pub capacity_seconds: u64,

    /// How the sustained rate is found.
    #[command(flatten)]
    pub search: GrowthSearch,

    /// Drain: events in the backlog, in whole batches
    #[arg(long, default_value_t = 200_000)]
    pub drain_transactions: u64,

    /// Where files are put.
    #[command(flatten)]
    pub places: Places,
}

/// How the growth run looks for the sustained rate.
#[derive(Args, Clone, Copy, Debug)]
pub struct GrowthSearch {
    /// Sustained: how long the estimate takes, in seconds
    #[arg(long, default_value_t = 20)]
    pub estimate_seconds: u64,

    /// Sustained: how long a trial at a constant rate takes, in seconds
    #[arg(long, default_value_t = 30)]
    pub trial_seconds: u64,

    /// Sustained: most trials
    #[arg(long, default_value_t = 5)]
    pub trials_max: usize,
}

impl Places {
    /// Where fdatasync is timed.
    #[must_use]
    pub fn disk(&self) -> &PathBuf {
        self.disk_dir.as_ref().unwrap_or(&self.report_dir)
    }
}

impl GrowthSearch {
    /// The same search as a run's, with these times.
    #[must_use]
    pub fn search(self) -> SearchSettings {
        SearchSettings {
            open_loop_connections: 256,
            estimate_seconds: self.estimate_seconds,
            estimate_backlog: 12_000,
            trial_seconds: self.trial_seconds,
            trials_max: self.trials_max,
        }
    }
}
