use std::{collections::BTreeMap, env, fs, time::Duration};

use anyhow::{Context, ensure};
use e2e::{Kind, Service};
use serde::Serialize;
use sqlx::PgPool;

use super::procfs;

/// The file of the broker's process id, as infra/local writes it: the id, a blank, its start time.
const BROKER_PID_FILE_VARIABLE: &str = "KAFKA_PID_FILE";

/// Who uses the machine while something is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The api.
    Api,
    /// All publishers.
    Publisher,
    /// All workers.
    Worker,
    /// `PostgreSQL`, with all its processes.
    Postgresql,
    /// The broker.
    Broker,
    /// The benchmark itself, with wrk.
    Generator,
}

impl Part {
    /// All, in the order of the report.
    pub const ALL: [Self; 6] = [
        Self::Postgresql,
        Self::Broker,
        Self::Api,
        Self::Publisher,
        Self::Worker,
        Self::Generator,
    ];

    /// Its name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Publisher => "publisher",
            Self::Worker => "worker",
            Self::Postgresql => "PostgreSQL",
            Self::Broker => "broker",
            Self::Generator => "generator",
        }
    }

    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Api => Self::Api,
            Kind::Publisher => Self::Publisher,
            Kind::Worker => Self::Worker,
        }
    }
}

/// CPU time by part.
pub type CpuTimes = BTreeMap<Part, Duration>;

/// Memory by part, in KiB: the peak of a service's and the broker's resident memory, and for
/// `PostgreSQL` the sum of its processes' proportional shares at the moment.
pub type PeakMemory = BTreeMap<Part, u64>;

/// The processes that are not the services: they outlive each of the benchmark's stacks.
#[derive(Clone, Copy, Debug)]
pub struct Processes {
    postmaster: u32,
    broker: Option<u32>,
}

impl Processes {
    /// Finds them: the server is the parent of each of its sessions' processes.
    pub async fn find(database: &PgPool) -> anyhow::Result<Self> {
        let session: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(database)
            .await?;
        let session = procfs::stat(session.unsigned_abs());
        let postmaster = session
            .context("PostgreSQL does not run on this machine")?
            .parent;
        let program = procfs::program(postmaster).unwrap_or_default();
        ensure!(
            program.starts_with("postgres") || program == "postmaster",
            "PostgreSQL does not run on this machine: found {program}"
        );
        Ok(Self {
            postmaster,
            broker: broker(),
        })
    }

    /// The CPU time that each part has used since it was started.
    #[must_use]
    pub fn cpu_times(&self, services: &[Service]) -> CpuTimes {
        let mut times = CpuTimes::new();
        for service in services {
            *times.entry(Part::of(service.kind())).or_default() += own_time(service.pid());
        }
        times.insert(Part::Postgresql, family_time(self.postmaster));
        times.insert(Part::Generator, with_ended_children(std::process::id()));
        if let Some(broker) = self.broker {
            times.insert(Part::Broker, own_time(broker));
        }
        times
    }

    /// The memory of each part.
    #[must_use]
    pub fn memory(&self, services: &[Service]) -> PeakMemory {
        let mut memory = PeakMemory::new();
        for service in services {
            let peak = procfs::peak_resident_kib(service.pid()).unwrap_or_default();
            let known = memory.entry(Part::of(service.kind())).or_default();
            *known = peak.max(*known);
        }
        let server = procfs::children(self.postmaster).into_iter();
        let server = server.chain([self.postmaster]);
        memory.insert(
            Part::Postgresql,
            server.filter_map(procfs::proportional_kib).sum(),
        );
        if let Some(peak) = self.broker.and_then(procfs::peak_resident_kib) {
            memory.insert(Part::Broker, peak);
        }
        memory
    }
}

fn own_time(pid: u32) -> Duration {
    procfs::stat(pid).map_or(Duration::ZERO, |stat| stat.own)
}

fn with_ended_children(pid: u32) -> Duration {
    procfs::stat(pid).map_or(Duration::ZERO, |stat| stat.own + stat.ended_children)
}

/// A process, its children, and those that have ended: what a session used is added to the server's
/// account when the session ends, so the sum never falls.
fn family_time(pid: u32) -> Duration {
    let children = procfs::children(pid).into_iter();
    with_ended_children(pid) + children.map(with_ended_children).sum::<Duration>()
}

fn broker() -> Option<u32> {
    let file = fs::read_to_string(env::var_os(BROKER_PID_FILE_VARIABLE)?).ok()?;
    file.split_whitespace().next()?.parse().ok()
}
