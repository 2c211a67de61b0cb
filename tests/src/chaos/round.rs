use std::{collections::BTreeMap, fmt, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    act, dead_letters,
    fleet::{Fleet, Notes},
    load::Load,
    poison,
    schedule::{schedule, selection},
    seed::Dice,
    verdict::{self, Ends},
    watch,
};
use crate::{
    client::Client,
    stack::{Setup, Stack},
};

/// Partitions of each topic in a round.
const PARTITIONS: i32 = 6;
/// How long a round may take: the suite never hangs.
const ROUND_MAX: Duration = Duration::from_mins(15);
/// The pause between two looks for instances that have crashed.
const LOOK_AFTER: Duration = Duration::from_millis(200);

/// The worker's isolation level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The default.
    Serializable,
    /// The other one.
    ReadCommitted,
}

impl Isolation {
    /// As `WORKER_ISOLATION` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serializable => "serializable",
            Self::ReadCommitted => "read-committed",
        }
    }
}

/// What a round does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Which round of the seed, from 0.
    pub round: usize,
    /// How many faults; none for the selection that `make test` runs.
    pub faults: Option<usize>,
    /// The worker's isolation level.
    pub isolation: Isolation,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, round {}, {}, {}",
            self.seed,
            self.round,
            self.faults
                .map_or("the selection".to_owned(), |faults| format!(
                    "{faults} faults"
                )),
            self.isolation.as_str()
        )
    }
}

/// What came of a round.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How often each kind of fault happened.
    pub done: BTreeMap<String, u32>,
    /// How often it could not.
    pub skipped: BTreeMap<String, u32>,
    /// Everything that is wrong. There has to be nothing.
    pub wrongs: Vec<String>,
    /// What happened when.
    pub timeline: Vec<String>,
    /// Acknowledged transactions.
    pub acknowledged: usize,
    /// Of all transactions: posted, refused, waiting for somebody when the faults were over.
    pub ends: (usize, usize, usize),
    /// Dead letters that were replayed and discarded at the end.
    pub cleared: (usize, usize),
    /// What the services wrote, if something is wrong.
    pub logs: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs one round on a database, topics and a group of its own.
pub async fn run(plan: Plan) -> Outcome {
    let began = Instant::now();
    let setup = Setup {
        partitions: Some(PARTITIONS),
        ..Setup::default()
    };
    let stack = Stack::create(setup).await;
    let fleet = Fleet::new(stack, PARTITIONS, settings(plan)).await;
    let came_to = timeout(ROUND_MAX, play(&fleet, plan)).await;
    let (ends, cleared) = came_to.unwrap_or_else(|_late| {
        fleet.wrong(format!("not over after {ROUND_MAX:?}"));
        (Ends::default(), (0, 0))
    });
    let Notes {
        done,
        skipped,
        wrongs,
        timeline,
    } = fleet.notes();
    let acknowledged = fleet.stack.book.acknowledged();
    let logs = if wrongs.is_empty() {
        fleet.stack.stop().await;
        String::new()
    } else {
        fleet.stack.logs()
    };
    fleet.stack.discard().await;
    Outcome {
        done,
        skipped,
        wrongs,
        timeline,
        acknowledged,
        ends: (ends.processed, ends.failed, ends.dead_lettered),
        cleared,
        logs,
        took: began.elapsed(),
    }
}

/// What is different from the defaults: retries come quickly, so that events are given up within a
/// round, and every third round keeps the rows that were sent.
fn settings(plan: Plan) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("WORKER_ISOLATION", plan.isolation.as_str().to_owned()),
        ("RETRY_PAUSE_FIRST_MS", "50".to_owned()),
        ("RETRY_PAUSE_MAX_MS", "1000".to_owned()),
    ];
    if plan.round % 3 == 2 {
        settings.push(("OUTBOX_RETENTION", "1h".to_owned()));
    }
    settings
}

async fn play(fleet: &Fleet, plan: Plan) -> (Ends, (usize, usize)) {
    let round = u64::try_from(plan.round).unwrap_or(u64::MAX);
    let dice = |stream: u64| Dice::new(plan.seed, 1_000_000 + round * 1_000 + stream);
    fleet.muster().await;
    poison::install(fleet.stack.database.superuser()).await;
    let apis = fleet.apis().await;
    let load = Load::start(&apis).await;
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    let hot_accounts = load.hot_accounts.clone();
    let faults = async {
        let start = Instant::now();
        let planned = match plan.faults {
            Some(faults) => schedule(plan.seed, plan.round, faults),
            None => selection(),
        };
        let performed = planned.into_iter().zip(100..).map(|(planned, stream)| {
            let (mut dice, hot_accounts) = (dice(stream), &hot_accounts);
            async move {
                sleep_until(start + Duration::from_millis(planned.at_ms)).await;
                let hot_account = hot_accounts[dice.index(hot_accounts.len())];
                act::perform(fleet, planned, dice, hot_account).await;
            }
        });
        join_all(performed).await;
        for wrong in load.stop().await {
            fleet.wrong(wrong);
        }
        stop.cancel();
    };
    let looking_after = async {
        while stop.run_until_cancelled(sleep(LOOK_AFTER)).await.is_some() {
            fleet.bring_back_the_crashed().await;
        }
    };
    let acts = async {
        let work = dead_letters::work(fleet, &apis, dice(1), &stop);
        tokio::join!(faults, looking_after, work);
        let came_to = end(fleet, &apis).await;
        over.cancel();
        came_to
    };
    let (came_to, ()) = tokio::join!(acts, watch::watch(fleet, dice(0), &over));
    came_to
}

/// Behind the faults: everything comes to its end, and the books are right; then what waits for
/// somebody is replayed or discarded, and the books are right again.
async fn end(fleet: &Fleet, apis: &[Client]) -> (Ends, (usize, usize)) {
    fleet.tell("the faults are over");
    fleet.disarm().await;
    fleet.bring_back_the_crashed().await;
    fleet.muster().await;
    if let Err(wrong) = verdict::settled(fleet).await {
        fleet.wrong(wrong);
    }
    let ends = verdict::judge(fleet).await;
    poison::remove(fleet.stack.database.superuser()).await;
    let cleared = match dead_letters::clear(fleet, apis).await {
        Ok(cleared) => cleared,
        Err(wrong) => {
            fleet.wrong(wrong);
            (0, 0)
        }
    };
    if let Err(wrong) = verdict::settled(fleet).await {
        fleet.wrong(wrong);
    }
    let last = verdict::judge(fleet).await;
    if last.dead_lettered > 0 {
        fleet.wrong(format!("still waiting behind all replays: {last:?}"));
    }
    fleet.tell(&format!(
        "replayed {} and discarded {}",
        cleared.0, cleared.1
    ));
    (ends, cleared)
}
