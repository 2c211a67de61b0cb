//! Services that break one of the rules on which the promises rest: the checker has to notice each.
//!
//! Behind most rules stands another one. Where a unique key would hide what a mutant does, the scenario
//! removes it first, and says so.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::poison::insist;
use crate::{
    audit::{OPEN_TRANSACTIONS, Snapshot},
    client::Client,
    service::{Kind, Service},
    stack::{Setup, Stack},
    traffic::Traffic,
};

/// How long everything may take to come to its end without any progress, before the books are looked at
/// as they are.
const STANDSTILL_MAX: Duration = Duration::from_secs(15);
/// How long a publisher is frozen: past the ownership of lanes.
const FROZEN: Duration = Duration::from_secs(9);
/// How long a broker says nothing: several of a publisher's cycles.
const SILENT: Duration = Duration::from_secs(5);
/// How late each of the database's answers comes where two groups post.
const LATE: Duration = Duration::from_millis(20);

/// A rule that is broken, and the circumstances in which that shows.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    name: &'static str,
    scenario: Scenario,
    shows_as: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Scenario {
    Rewound,
    WorkerCrashes,
    BrokerSilent,
    PublisherFrozen,
    TwoGroups,
    ApiCrashes,
}

/// All of them.
#[must_use]
pub fn mutants() -> [Mutant; 6] {
    [
        // A transaction with two entries.
        ("ignore_closed", Scenario::Rewound, "}, EntryRow {"),
        // What was never applied, though everybody had the time.
        (
            "offsets_before_commit",
            Scenario::WorkerCrashes,
            "has the entries []",
        ),
        (
            "mark_before_ack",
            Scenario::BrokerSilent,
            "has the entries []",
        ),
        (
            "keep_lost_lane",
            Scenario::PublisherFrozen,
            "was overtaken by",
        ),
        // A balance that does not follow from the one before.
        ("no_account_lock", Scenario::TwoGroups, "expected number"),
        (
            "answer_before_commit",
            Scenario::ApiCrashes,
            "acknowledged and lost",
        ),
    ]
    .map(|(name, scenario, shows_as)| Mutant {
        name,
        scenario,
        shows_as,
    })
}

impl Mutant {
    /// As `FAULT_MUTATION` names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Of what the checker found, that which such a mutant does.
    #[must_use]
    pub fn given_away_by(self, wrongs: &[String]) -> Option<&String> {
        wrongs.iter().find(|wrong| wrong.contains(self.shows_as))
    }

    /// Plays the scenario, with the rule broken or, as a control, whole; answers what the checker finds.
    pub async fn run(self, broken: bool) -> Vec<String> {
        let setup = Setup {
            proxies: matches!(self.scenario, Scenario::BrokerSilent | Scenario::TwoGroups),
            ..Setup::default()
        };
        let stack = Stack::create(setup).await;
        let own: &[_] = if broken {
            &[("FAULT_MUTATION", self.name)]
        } else {
            &[]
        };
        let stage = Stage { stack: &stack, own };
        match self.scenario {
            Scenario::Rewound => stage.rewound().await,
            Scenario::WorkerCrashes => stage.worker_crashes().await,
            Scenario::BrokerSilent => stage.broker_silent().await,
            Scenario::PublisherFrozen => stage.publisher_frozen().await,
            Scenario::TwoGroups => stage.two_groups().await,
            Scenario::ApiCrashes => stage.api_crashes().await,
        }
        let wrongs = settled_or_not(&stack).await;
        stack.discard().await;
        wrongs
    }
}

/// What the books say once everything has come to its end, or could have.
async fn settled_or_not(stack: &Stack) -> Vec<String> {
    let (mut least, mut since) = (i64::MAX, Instant::now());
    while least > 0 && since.elapsed() < STANDSTILL_MAX {
        let open = stack.database.count(OPEN_TRANSACTIONS).await;
        if open < least {
            (least, since) = (open, Instant::now());
        }
        sleep(Duration::from_millis(100)).await;
    }
    let snapshot = Snapshot::of(stack).await;
    snapshot.wrongs(&stack.book.entries())
}

/// A stack, and what the mutant among its services gets besides.
struct Stage<'a> {
    stack: &'a Stack,
    own: &'a [(&'a str, &'a str)],
}

impl Stage<'_> {
    /// Everything is delivered again. Without the unique keys the guards alone stand against it.
    async fn rewound(&self) {
        let stack = self.stack;
        let [_, _, worker] = stack.start_all().await;
        let traffic = self.traffic(2, 4).await;
        traffic.flow(100).await;
        traffic.stop().await;
        stack.audit().await;
        worker.terminate().await;
        self.drop_keys(
            "ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_one_per_transaction;
             ALTER TABLE processed_events DROP CONSTRAINT processed_events_pkey",
        )
        .await;
        let topic = &stack.transactions_topic;
        stack.kafka.rewind_group(&stack.group, topic);
        stack
            .launch_with(Kind::Worker, self.own)
            .await
            .ready()
            .await;
        stack.kafka.group_caught_up(&stack.group, topic).await;
    }

    /// The worker crashes before a commit.
    async fn worker_crashes(&self) {
        let stack = self.stack;
        stack.start(Kind::Api).await;
        stack.start(Kind::Publisher).await;
        let worker = self
            .mutant(Kind::Worker, Some("worker.before_commit:20"))
            .await;
        let traffic = self.traffic(2, 4).await;
        worker.ended().await;
        stack.start(Kind::Worker).await;
        traffic.flow(20).await;
        traffic.stop().await;
    }

    /// The broker falls silent, and the publisher is killed before it speaks again. Of many lanes some are
    /// free at that moment, and sent into the silence.
    async fn broker_silent(&self) {
        let stack = self.stack;
        stack.start(Kind::Api).await;
        let publisher = self.mutant(Kind::Publisher, None).await;
        stack.start(Kind::Worker).await;
        let traffic = self.traffic(24, 12).await;
        traffic.flow(50).await;
        stack.kafka_proxy().swallow();
        traffic.flow(100).await;
        sleep(SILENT).await;
        publisher.kill().await;
        stack.kafka_proxy().restore();
        stack.start(Kind::Publisher).await;
        traffic.flow(20).await;
        traffic.stop().await;
    }

    /// A publisher is frozen until another one has its lanes, and comes back.
    async fn publisher_frozen(&self) {
        let stack = self.stack;
        stack.start(Kind::Api).await;
        let publisher = self.mutant(Kind::Publisher, None).await;
        stack.start(Kind::Worker).await;
        stack.start(Kind::Publisher).await;
        let traffic = self.traffic(8, 16).await;
        traffic.flow(100).await;
        publisher.signal("STOP").await;
        sleep(FROZEN).await;
        publisher.signal("CONT").await;
        traffic.flow(2_000).await;
        traffic.stop().await;
    }

    /// Two groups read everything and post beside each other, to one account, over lines that leave time
    /// between reading its balance and writing it. Without the unique keys the account's lock alone
    /// keeps the balance.
    async fn two_groups(&self) {
        let stack = self.stack;
        self.drop_keys(
            "ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_pkey;
             ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_one_per_transaction",
        )
        .await;
        stack.start(Kind::Api).await;
        stack.start(Kind::Publisher).await;
        for group in ["one", "two"] {
            let group = format!("{}.{group}", stack.group);
            let mut own = self.own.to_vec();
            own.push(("CONSUMER_GROUP", &group));
            own.push(("WORKER_ISOLATION", "read-committed"));
            stack.launch_with(Kind::Worker, &own).await.ready().await;
        }
        stack.database_proxy().delay(LATE);
        let traffic = self.traffic(1, 16).await;
        traffic.flow(1_000).await;
        traffic.stop().await;
        stack.database_proxy().restore();
    }

    /// The api crashes before a write.
    async fn api_crashes(&self) {
        let stack = self.stack;
        stack.start(Kind::Publisher).await;
        stack.start(Kind::Worker).await;
        let api = self.mutant(Kind::Api, Some("api.before_write:60")).await;
        let traffic = self.traffic(2, 4).await;
        api.ended().await;
        stack.start(Kind::Api).await;
        traffic.flow(20).await;
        traffic.stop().await;
    }

    /// Starts the mutant, which may crash at a pass of a step.
    async fn mutant(&self, kind: Kind, point: Option<&str>) -> Service {
        let mut own = self.own.to_vec();
        own.extend(point.map(|point| ("FAULT_POINT", point)));
        let service = self.stack.launch_with(kind, &own).await;
        service.ready().await;
        service
    }

    async fn traffic(&self, accounts: usize, clients: usize) -> Traffic {
        let client: Client = self.stack.client().await;
        let mut opened = Vec::new();
        for _ in 0..accounts {
            opened.push(client.open_account().await);
        }
        Traffic::start(&client, &self.stack.book, &opened, clients)
    }

    async fn drop_keys(&self, sql: &'static str) {
        insist(self.stack.database.superuser(), sql).await;
    }
}
