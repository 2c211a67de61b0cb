use std::fmt;

use super::seed::Dice;
use crate::service::Kind;

/// How many instances of each service a round runs.
pub(super) const INSTANCES: usize = 2;

/// Where the services can be made to crash: every step between "row committed" and "offset committed",
/// and those of parking, retrying, giving up and replaying. Those of a row that the broker refuses for good
/// (`publisher.letter_before_commit`, `publisher.letter_after_commit`) are not among them: no round has such
/// a row.
pub const POINTS: [&str; 20] = [
    "api.before_write",
    "api.after_commit",
    "api.replay_before_commit",
    "api.replay_after_commit",
    "publisher.before_send",
    "publisher.after_send",
    "publisher.after_ack",
    "publisher.before_mark",
    "publisher.after_mark",
    "worker.locked",
    "worker.before_commit",
    "worker.after_commit",
    "worker.before_offsets",
    "worker.after_offsets",
    "worker.park_before_commit",
    "worker.park_after_commit",
    "worker.retry_before_commit",
    "worker.retry_after_commit",
    "worker.dead_before_commit",
    "worker.dead_after_commit",
];

/// One of a service's instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The service.
    pub kind: Kind,
    /// Which of its instances, from 0.
    pub number: usize,
}

/// What the services stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL.
    Postgres,
    /// Kafka.
    Kafka,
}

/// The connections of an instance to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The instance.
    pub slot: Slot,
    /// The server.
    pub server: Server,
}

/// Something that goes wrong, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9, and a start afterwards.
    Kill(Slot),
    /// SIGSTOP, and SIGCONT afterwards: past the session timeout, past the ownership of lanes.
    Freeze(Slot),
    /// SIGTERM, and a start afterwards: it has to exit with 0.
    Terminate(Slot),
    /// SIGTERM twice: the second one ends it at once.
    TerminateTwice(Slot),
    /// kill -9 of a whole server, and a start afterwards.
    KillServer(Server),
    /// Connections break, and new ones are refused.
    Cut(Link),
    /// Connections stay open, and nothing comes through.
    Swallow(Link),
    /// Answers come late.
    Delay(Link),
    /// A thin line.
    Trickle(Link),
    /// Some answers break in the middle, those of commits among them.
    CutAnswers(Link),
    /// An instance is started so that it crashes at a step of its work.
    Crash(&'static str, usize),
    /// A worker joins and leaves every second.
    RebalanceStorm,
    /// A transaction stays open, and keeps its snapshot.
    IdleTransaction,
    /// Somebody holds the lock of a hot account.
    LockedAccount,
    /// The workers' group is sent back to offset 0.
    Rewind,
    /// A second group reads everything from the beginning, and posts beside the first.
    SecondGroup,
    /// Records that somebody else wrote to the topic.
    Forged,
    /// A worker or the publisher loses a right that it needs.
    RevokedGrant,
}

impl Fault {
    /// One of each kind, on instances that the dice choose.
    pub(super) fn deck(dice: &mut Dice) -> Vec<Self> {
        let mut number = || dice.index(INSTANCES);
        let mut deck = Vec::new();
        for kind in Kind::ALL {
            for fault in [
                Self::Kill,
                Self::Freeze,
                Self::Terminate,
                Self::TerminateTwice,
            ] {
                let number = number();
                deck.push(fault(Slot { kind, number }));
            }
        }
        for (kind, server) in [
            (Kind::Api, Server::Postgres),
            (Kind::Publisher, Server::Postgres),
            (Kind::Publisher, Server::Kafka),
            (Kind::Worker, Server::Postgres),
            (Kind::Worker, Server::Kafka),
        ] {
            for fault in [
                Self::Cut,
                Self::Swallow,
                Self::Delay,
                Self::Trickle,
                Self::CutAnswers,
            ] {
                let slot = Slot {
                    kind,
                    number: number(),
                };
                deck.push(fault(Link { slot, server }));
            }
        }
        deck.extend(POINTS.map(|point| Self::Crash(point, number())));
        deck.extend([
            Self::KillServer(Server::Postgres),
            Self::KillServer(Server::Kafka),
            Self::RebalanceStorm,
            Self::IdleTransaction,
            Self::LockedAccount,
            Self::Rewind,
            Self::SecondGroup,
            Self::Forged,
            Self::RevokedGrant,
        ]);
        deck
    }

    /// How long it may last, in milliseconds: from, to.
    pub(super) const fn lasts_ms(self) -> (u64, u64) {
        match self {
            Self::Freeze(_) => (11_000, 16_000),
            Self::Swallow(_) => (2_000, 15_000),
            Self::Delay(_) | Self::Trickle(_) | Self::RebalanceStorm => (4_000, 10_000),
            Self::SecondGroup | Self::Crash(..) => (8_000, 15_000),
            Self::IdleTransaction => (60_000, 120_000),
            Self::LockedAccount => (1_000, 8_000),
            Self::CutAnswers(_) | Self::Forged | Self::RevokedGrant => (1_000, 5_000),
            Self::Kill(_)
            | Self::Terminate(_)
            | Self::TerminateTwice(_)
            | Self::KillServer(_)
            | Self::Cut(_)
            | Self::Rewind => (0, 6_000),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Kafka => "Kafka",
        })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "between {} and {}", self.slot.kind.name(), self.server)
    }
}

/// Its kind, as the report counts it; which instance it hit is left out.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(slot) => write!(f, "kill -9 of {}", slot.kind.name()),
            Self::Freeze(slot) => write!(f, "SIGSTOP of {}", slot.kind.name()),
            Self::Terminate(slot) => write!(f, "SIGTERM of {}", slot.kind.name()),
            Self::TerminateTwice(slot) => write!(f, "SIGTERM twice of {}", slot.kind.name()),
            Self::KillServer(server) => write!(f, "kill -9 of {server}"),
            Self::Cut(link) => write!(f, "broken connections {link}"),
            Self::Swallow(link) => write!(f, "silent connections {link}"),
            Self::Delay(link) => write!(f, "late answers {link}"),
            Self::Trickle(link) => write!(f, "a thin line {link}"),
            Self::CutAnswers(link) => write!(f, "answers cut in the middle {link}"),
            Self::Crash(point, _) => write!(f, "crash at {point}"),
            Self::RebalanceStorm => f.write_str("rebalance storm"),
            Self::IdleTransaction => f.write_str("idle transaction left open"),
            Self::LockedAccount => f.write_str("a hot account's lock held"),
            Self::Rewind => f.write_str("group sent back to offset 0"),
            Self::SecondGroup => f.write_str("second group from offset 0"),
            Self::Forged => f.write_str("forged records"),
            Self::RevokedGrant => f.write_str("revoked grant"),
        }
    }
}
