//! What a section measures on: a stack of its own, with accounts, and the services it starts.

use std::time::Duration;

use anyhow::bail;
use e2e::{Client, Kind, Service, Setup, Stack};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    accounts,
    backlog::accepted,
    figures::{count, float, micros},
    history,
    ledger::Expected,
    load::{Instructions, Target, Wrk},
    report::Cost,
    settings::Places,
    system::{CpuTimes, Processes},
};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long a count that is waited for may stand still.
const STANDSTILL_MAX: Duration = Duration::from_mins(1);
/// How long requests that nobody waits for any more may take: longer than the api's own deadline.
const SETTLED_MAX: Duration = Duration::from_secs(15);

/// A stack with an api and accounts on it, and what is known of what was sent to it.
#[derive(Debug)]
pub struct Rig {
    /// The database, the topics and the services.
    pub stack: Stack,
    /// The api.
    pub target: Target,
    /// What is sent to it.
    pub instructions: Instructions,
    /// What the ledger must hold in the end.
    pub expected: Expected,
    key: String,
    places: Places,
    processes: Processes,
    services: Vec<Service>,
}

/// What is in the tables before anything is measured.
#[derive(Clone, Copy, Debug)]
pub struct Filling {
    /// Accounts, each with its funds.
    pub accounts: usize,
    /// Finished transactions beside those that funded the accounts.
    pub transactions: u64,
}

/// The state of the counters at the start of a measured window.
#[derive(Clone, Debug)]
pub struct Window {
    cpu: CpuTimes,
    wal: i64,
    started: Instant,
}

impl Rig {
    /// Makes a stack, fills it and starts an api. Every setting is the services' own default.
    pub async fn build(filling: Filling, places: &Places) -> anyhow::Result<Self> {
        let setup = Setup {
            partitions: None,
            ..Setup::default()
        };
        let stack = Stack::create(setup).await;
        Self::on(stack, filling, places).await
    }

    async fn on(stack: Stack, filling: Filling, places: &Places) -> anyhow::Result<Self> {
        let database = stack.database.superuser();
        let ids = accounts::open(database, filling.accounts).await?;
        if filling.transactions > 0 {
            let started = Instant::now();
            history::fill(database, &ids, filling.transactions).await?;
            let size = "SELECT pg_database_size(current_database()) / 1000000";
            let (megabytes, took) = (stack.database.count(size).await, started.elapsed());
            eprintln!("    filled {megabytes} MB in {:.0} s", took.as_secs_f64());
        }
        settle(database).await?;
        let (_, key) = stack.make_key("read,write").await;
        let api = stack.start(Kind::Api).await;
        let expected = Expected {
            before: count(filling.accounts) + filling.transactions,
            ..Expected::default()
        };
        Ok(Self {
            target: Target::new(stack.api.get(), &key)?,
            instructions: Instructions::new(ids, Uuid::new_v4().as_u64_pair().0),
            expected,
            key,
            places: places.clone(),
            processes: Processes::find(stack.database.superuser()).await?,
            services: vec![api],
            stack,
        })
    }

    /// Starts some services of a kind side by side, and waits until they are ready.
    pub async fn start(&mut self, kind: Kind, services: usize) {
        let first = self.services.len();
        for _ in 0..services {
            let service = self.stack.launch(kind).await;
            self.services.push(service);
        }
        for service in &self.services[first..] {
            service.ready().await;
        }
    }

    /// Starts a service that may not be ready for now.
    pub async fn launch(&mut self, kind: Kind) {
        let service = self.stack.launch(kind).await;
        self.services.push(service);
    }

    /// Ends all services of a kind.
    pub async fn stop(&mut self, kind: Kind) {
        for service in self.services.iter().filter(|s| s.kind() == kind) {
            service.terminate().await;
        }
        self.services.retain(|service| service.kind() != kind);
    }

    /// All services that run.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The database, as its superuser.
    #[must_use]
    pub fn database(&self) -> &PgPool {
        self.stack.database.superuser()
    }

    /// A client for single payments beside the load.
    #[must_use]
    pub fn client(&self) -> Client {
        self.stack.client_of(Some(self.key.clone()))
    }

    /// wrk for this api.
    #[must_use]
    pub fn wrk(&self) -> Wrk {
        Wrk {
            url: format!("http://{}", self.target.address),
            key: self.key.clone(),
            folder: self.places.report_dir.clone(),
        }
    }

    /// The memory of everything that runs now.
    #[must_use]
    pub fn memory(&self) -> crate::system::PeakMemory {
        self.processes.memory(&self.services)
    }

    /// Begins a measured window.
    pub async fn window(&self) -> anyhow::Result<Window> {
        Ok(Window {
            wal: wal_bytes(self.database()).await?,
            cpu: self.processes.cpu_times(&self.services),
            started: Instant::now(),
        })
    }

    /// Ends it: what each of the transactions that passed in it has cost.
    pub async fn cost(
        &self,
        what: &str,
        window: &Window,
        transactions: u64,
    ) -> anyhow::Result<Cost> {
        let cpu = self.processes.cpu_times(&self.services);
        let took = window.started.elapsed();
        let wal = wal_bytes(self.database()).await? - window.wal;
        let each = float(transactions.max(1));
        let cpu_us = cpu.into_iter().map(|(part, time)| {
            let before = window.cpu.get(&part).copied().unwrap_or_default();
            (part, float(micros(time.saturating_sub(before))) / each)
        });
        Ok(Cost {
            what: what.to_owned(),
            transactions,
            seconds: took.as_secs_f64(),
            cpu_us: cpu_us.collect(),
            wal_bytes: float(wal.unsigned_abs()) / each,
        })
    }

    /// Waits until every event that there is has been sent, and marked as sent.
    pub async fn quiet(&self) -> anyhow::Result<()> {
        let pending = "SELECT count(*) FROM outbox_events WHERE status = 'PENDING'";
        let sent = async |rig: &Self| u64::from(rig.stack.database.count(pending).await == 0);
        self.reach("the outbox is empty", 1, sent).await
    }

    /// Asks the api how many transactions it has accepted. Those whose answers nobody waited for may still
    /// be written: it is asked until its count is that of the table, or it had the time to finish.
    pub async fn accepted_by_api(&self) -> anyhow::Result<u64> {
        let asked = Instant::now();
        loop {
            let made = transactions(self.database()).await?;
            let made = made.saturating_sub(self.expected.before);
            let accepted = accepted(&self.services).await;
            if accepted == made || asked.elapsed() > SETTLED_MAX {
                return Ok(accepted);
            }
            sleep(POLL).await;
        }
    }

    /// Waits until a count has reached a goal. It may not stand still for long.
    pub async fn reach(
        &self,
        what: &str,
        goal: u64,
        mut look: impl AsyncFnMut(&Self) -> u64,
    ) -> anyhow::Result<()> {
        let (mut seen, mut moved) = (0, Instant::now());
        loop {
            let now = look(self).await;
            if now >= goal {
                return Ok(());
            }
            if now != seen {
                (seen, moved) = (now, Instant::now());
            }
            if moved.elapsed() > STANDSTILL_MAX {
                bail!("{what}: stands still at {now} of {goal}");
            }
            sleep(POLL).await;
        }
    }
}

/// Lets the server finish with what was filled in: statistics, visibility, and dirty pages. Each
/// section so begins alike, and each page that it touches first costs its full image in the WAL.
pub async fn settle(database: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("VACUUM (ANALYZE)").execute(database).await?;
    sqlx::raw_sql("CHECKPOINT").execute(database).await?;
    Ok(())
}

async fn transactions(database: &PgPool) -> Result<u64, sqlx::Error> {
    let transactions: i64 = sqlx::query_scalar("SELECT count(*) FROM transactions")
        .fetch_one(database)
        .await?;
    Ok(transactions.unsigned_abs())
}

async fn wal_bytes(database: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT (pg_current_wal_lsn() - '0/0')::bigint")
        .fetch_one(database)
        .await
}
