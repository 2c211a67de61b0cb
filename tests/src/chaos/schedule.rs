use super::{
    fault::{Fault, Link, Server, Slot},
    seed::Dice,
};
use crate::service::Kind;

/// The pause between the beginnings of two faults, in milliseconds: most of them overlap.
const PAUSE_MS: (u64, u64) = (300, 3_300);

/// The same in what `make test` runs.
const SELECTION_PAUSE_MS: u64 = 2_800;

/// A fault and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it begins, behind the round's beginning, in milliseconds.
    pub at_ms: u64,
    /// How long it lasts, in milliseconds.
    pub lasts_ms: u64,
    /// What it is.
    pub fault: Fault,
}

/// The faults of a round, decided by the seed alone. Rounds deal from one shuffled deck of all faults
/// after another, so that every kind comes before any comes again.
#[must_use]
pub fn schedule(seed: u64, round: usize, faults: usize) -> Vec<Planned> {
    let mut dice = Dice::new(seed, 1 + u64::try_from(round).unwrap_or(u64::MAX));
    let mut at_ms = 1_000;
    dealt(seed, round * faults, faults)
        .into_iter()
        .map(|fault| {
            at_ms += dice.between(PAUSE_MS.0, PAUSE_MS.1);
            let (least, most) = fault.lasts_ms();
            Planned {
                // What lasts for minutes begins with the round, or the round would wait for it.
                at_ms: if fault == Fault::IdleTransaction {
                    0
                } else {
                    at_ms
                },
                lasts_ms: dice.between(least, most),
                fault,
            }
        })
        .collect()
}

/// What `make test` has time for: one of each family, always the same.
#[must_use]
pub(super) fn selection() -> Vec<Planned> {
    let slot = |kind, number| Slot { kind, number };
    let link = |kind, number, server| Link {
        slot: slot(kind, number),
        server,
    };
    let (api, publisher, worker) = (Kind::Api, Kind::Publisher, Kind::Worker);
    let (postgres, kafka) = (Server::Postgres, Server::Kafka);
    // What needs workers comes before both are sent back, or behind; the idle transaction ends before its
    // server is killed.
    let faults = [
        (Fault::IdleTransaction, 25_000),
        (Fault::Freeze(slot(worker, 0)), 11_000),
        (Fault::Freeze(slot(publisher, 0)), 11_000),
        (Fault::CutAnswers(link(api, 0, postgres)), 3_000),
        (Fault::CutAnswers(link(worker, 1, postgres)), 3_000),
        (Fault::Forged, 0),
        (Fault::Crash("worker.after_commit", 1), 8_000),
        (Fault::Kill(slot(publisher, 1)), 1_000),
        (Fault::KillServer(kafka), 2_000),
        (Fault::Rewind, 0),
        (Fault::Kill(slot(api, 1)), 1_000),
        (Fault::KillServer(postgres), 1_000),
        (Fault::Crash("publisher.after_ack", 0), 8_000),
        (Fault::RevokedGrant, 3_000),
        (Fault::Swallow(link(publisher, 1, kafka)), 5_000),
        (Fault::SecondGroup, 8_000),
        (Fault::LockedAccount, 2_000),
        (Fault::Kill(slot(worker, 0)), 1_000),
        (Fault::Terminate(slot(worker, 1)), 500),
        (Fault::TerminateTwice(slot(api, 0)), 500),
        (Fault::RebalanceStorm, 4_000),
    ];
    let times = (0..).map(|number| number * SELECTION_PAUSE_MS);
    let planned = times.zip(faults).map(|(at_ms, (fault, lasts_ms))| Planned {
        at_ms,
        lasts_ms,
        fault,
    });
    planned.collect()
}

/// So many faults behind the first ones of an endless deal.
fn dealt(seed: u64, behind: usize, count: usize) -> Vec<Fault> {
    let mut dice = Dice::new(seed, 0);
    let mut dealt = Vec::new();
    while dealt.len() < behind + count {
        let mut deck = Fault::deck(&mut dice);
        dice.shuffle(&mut deck);
        dealt.extend(deck);
    }
    dealt.drain(..behind);
    dealt.truncate(count);
    dealt
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_again() {
        assert_eq!(schedule(42, 3, 20), schedule(42, 3, 20));
        assert_ne!(schedule(42, 3, 20), schedule(43, 3, 20));
        assert_ne!(schedule(42, 3, 20), schedule(42, 4, 20));
    }

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        let kinds = Fault::deck(&mut Dice::new(0, 0)).len();
        let rounds = (0..kinds).flat_map(|round| schedule(9, round, 1));
        let seen: HashSet<_> = rounds.map(|planned| planned.fault.to_string()).collect();
        assert_eq!(seen.len(), kinds);
    }

    #[test]
    fn faults_begin_one_after_another_and_overlap() {
        let planned = schedule(1, 0, 50);
        let starts = planned.iter().filter(|planned| planned.at_ms > 0);
        let starts: Vec<_> = starts.map(|planned| planned.at_ms).collect();
        assert!(starts.is_sorted());
        let pairs = planned.windows(2);
        let overlapping = pairs.filter(|pair| pair[0].at_ms + pair[0].lasts_ms > pair[1].at_ms);
        assert!(overlapping.count() > 10);
    }
}
