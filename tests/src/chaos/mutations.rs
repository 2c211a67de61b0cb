//! Services that break one of the rules on which the promises rest: the checker has to notice each.
//!
//! Behind most rules stands another one. Where a unique key would hide what a mutant does, the scenario
//! removes it first, and says so.

use std::{fmt, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::poison::insist;
use crate::{
    audit::Snapshot,
    client::Client,
    service::{Kind, Service},
    stack::{Setup, Stack},
    traffic::Traffic,
};

/// How long it may take until nobody has anything left to do: before that, what is open may still come.
const REST_MAX: Duration = Duration::from_mins(2);
/// How long a publisher is frozen: past the ownership of lanes.
const FROZEN: Duration = Duration::from_secs(9);
/// How long the lanes' new owner stands still then: within its ownership.
const OWNER_FROZEN: Duration = Duration::from_secs(2);
/// How long a broker says nothing: several of a publisher's cycles.
const SILENT: Duration = Duration::from_secs(5);
/// The groups that post beside each other.
const TWO_GROUPS: [&str; 2] = ["one", "two"];
/// How late each of the database's answers comes where two groups post.
const LATE: Duration = Duration::from_millis(20);

/// A rule that is broken, and the circumstances in which that shows.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    name: &'static str,
    scenario: Scenario,
    shows_as: &'static str,
}

/// How a mutant's scenario is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// With the rule broken: the checker has to notice.
    Mutant,
    /// With the rule whole, as a control: nothing may be wrong.
    Sound,
    /// With the rule broken, and without the fault against which it stands: nothing may be wrong, or the
    /// checker has noticed something else.
    MutantUndisturbed,
}

impl fmt::Display for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mutant => "mutation",
            Self::Sound => "control",
            Self::MutantUndisturbed => "undisturbed",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// How it can be played.
    #[must_use]
    pub fn casts(self) -> Vec<Cast> {
        let mut casts = vec![Cast::Mutant, Cast::Sound];
        if self.scenario == Scenario::PublisherFrozen {
            casts.push(Cast::MutantUndisturbed);
        }
        casts
    }

    /// Whether a cast is worth its time in each test run. Beside the mutants these are the controls of
    /// what the scenario itself could be to blame for: it drops unique keys, or it is not needed.
    #[must_use]
    pub const fn is_selected(self, cast: Cast) -> bool {
        let drops_keys = matches!(self.scenario, Scenario::Rewound | Scenario::TwoGroups);
        match cast {
            Cast::Mutant | Cast::MutantUndisturbed => true,
            Cast::Sound => drops_keys,
        }
    }

    /// Plays the scenario, and answers what the checker finds once nobody has anything left to do.
    ///
    /// # Panics
    /// If the scenario does not come so far: then it shows nothing.
    pub async fn play(self, cast: Cast) -> Vec<String> {
        let setup = Setup {
            proxies: matches!(self.scenario, Scenario::BrokerSilent | Scenario::TwoGroups),
            ..Setup::default()
        };
        let stack = Stack::create(setup).await;
        let own: &[_] = if cast == Cast::Sound {
            &[]
        } else {
            &[("FAULT_MUTATION", self.name)]
        };
        let stage = Stage { stack: &stack, own };
        match self.scenario {
            Scenario::Rewound => stage.rewound().await,
            Scenario::WorkerCrashes => stage.worker_crashes().await,
            Scenario::BrokerSilent => stage.broker_silent().await,
            Scenario::PublisherFrozen => {
                let frozen = cast != Cast::MutantUndisturbed;
                stage.publisher_frozen(frozen).await;
            }
            Scenario::TwoGroups => stage.two_groups().await,
            Scenario::ApiCrashes => stage.api_crashes().await,
        }
        let groups = match self.scenario {
            Scenario::TwoGroups => TWO_GROUPS.map(|name| stage.group(name)).into(),
            _ => vec![stack.group.clone()],
        };
        comes_to_rest(&stack, &groups).await;
        let wrongs = Snapshot::of(&stack).await.wrongs(&stack.book.entries());
        stack.discard().await;
        wrongs
    }
}

/// Waits until nobody has anything left to do: only then is an open transaction lost, and not late.
///
/// # Panics
/// If there still is something to do after a long time.
async fn comes_to_rest(stack: &Stack, groups: &[String]) {
    for service in stack.running().await {
        service.ready().await;
    }
    let deadline = Instant::now() + REST_MAX;
    while let Some(left) = left_to_do(stack, groups).await {
        assert!(
            Instant::now() < deadline,
            "not within {REST_MAX:?}, so nothing is known to be lost: {left}"
        );
        sleep(Duration::from_millis(250)).await;
    }
}

/// What somebody still has to do, in the order in which a payment passes it. What a worker has written
/// is asked for last, since it writes before it commits its offsets.
async fn left_to_do(stack: &Stack, groups: &[String]) -> Option<String> {
    let unsent = "SELECT count(*) FROM outbox_events WHERE status = 'PENDING'";
    let parked = "SELECT count(*) FROM parked_events";
    let count = async |what: &str, sql| match stack.database.count(sql).await {
        0 => None,
        rows => Some(format!("{rows} {what}")),
    };
    if let Some(left) = count("events to be sent", unsent).await {
        return Some(left);
    }
    for group in groups {
        let (kafka, topic) = (stack.kafka.clone(), stack.transactions_topic.clone());
        let asked = group.clone();
        let caught_up = spawn_blocking(move || kafka.is_caught_up(&asked, &topic)).await;
        if !caught_up.unwrap_or(false) {
            return Some(format!("{group} is not at the end of its topic"));
        }
    }
    match count("parked events", parked).await {
        Some(left) => Some(left),
        None => count("results to be sent", unsent).await,
    }
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
            .mutant(Kind::Worker, Some(("worker.before_commit", 20)))
            .await;
        let traffic = self.traffic(2, 4).await;
        crashes_at(&worker, "worker.before_commit").await;
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

    /// A publisher is frozen until another one has its lanes, and comes back while that one stands still,
    /// so that for a moment it alone would send, if it did. At last it goes, and the other one sends what
    /// was left.
    async fn publisher_frozen(&self, frozen: bool) {
        let stack = self.stack;
        stack.start(Kind::Api).await;
        let publisher = self.mutant(Kind::Publisher, None).await;
        stack.start(Kind::Worker).await;
        let other = stack.start(Kind::Publisher).await;
        let traffic = self.traffic(24, 24).await;
        traffic.flow(100).await;
        if frozen {
            publisher.signal("STOP").await;
            sleep(FROZEN).await;
            other.signal("STOP").await;
            publisher.signal("CONT").await;
            sleep(OWNER_FROZEN).await;
            other.signal("CONT").await;
        }
        traffic.flow(1_000).await;
        traffic.stop().await;
        publisher.kill().await;
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
        for name in TWO_GROUPS {
            let group = self.group(name);
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
        let api = self.mutant(Kind::Api, Some(("api.before_write", 60))).await;
        let traffic = self.traffic(2, 4).await;
        crashes_at(&api, "api.before_write").await;
        stack.start(Kind::Api).await;
        traffic.flow(20).await;
        traffic.stop().await;
    }

    /// The name of a group of this stack.
    fn group(&self, name: &str) -> String {
        format!("{}.{name}", self.stack.group)
    }

    /// Starts the mutant, which may crash at a pass of a step.
    async fn mutant(&self, kind: Kind, crash: Option<(&str, u64)>) -> Service {
        let point = crash.map(|(point, pass)| format!("{point}:{pass}"));
        let mut own = self.own.to_vec();
        own.extend(point.as_deref().map(|point| ("FAULT_POINT", point)));
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

/// Waits until a service has crashed at a step; if it ends otherwise, the scenario shows nothing.
async fn crashes_at(service: &Service, point: &str) {
    let crashed = service.crashed_at(point).await;
    assert!(crashed, "{} did not crash at {point}", service.label());
}
