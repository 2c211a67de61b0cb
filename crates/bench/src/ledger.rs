//! Whether the ledger holds what was acknowledged, asked in SQL over whole tables.

mod sql;

use e2e::Stack;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    figures::count,
    load::{Capacity, Tally},
};

/// A load brings each account more than it takes, and no account is suspended: a system that refused
/// everything would have little to do, and its figures would flatter it.
const REJECTED: &str = "transactions were rejected, though no rule can reject one of the load";

/// What the ledger must hold.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Transactions that were there before the load: those that funded the accounts, or filled the
    /// tables.
    pub before: u64,
    /// The ids of the transactions that were acknowledged, where they are known.
    pub acknowledged: Vec<Uuid>,
    /// Acknowledged transactions that were only counted.
    pub counted: u64,
    /// Transactions that may exist beside these, and be unknown to the api itself: they were answered
    /// that their outcome is not known, or not at all.
    pub unknown: u64,
    /// Transactions that may exist beside these, and whose answers nobody waited for.
    pub not_awaited: u64,
    /// How many transactions the api says it has accepted; none if it was not asked.
    pub accepted_by_api: Option<u64>,
    /// Transactions whose events are given up: they wait for somebody.
    pub dead_lettered: u64,
    /// Whether all of them must have come to their end, and every event have left. If not, neither a
    /// publisher nor a worker has run, and each transaction of the load waits with its event.
    pub finished: bool,
}

impl Expected {
    /// Adds a load of our own generator.
    pub fn add(&mut self, tally: &Tally) {
        self.acknowledged.extend_from_slice(&tally.acknowledged);
        self.unknown += tally.unknown;
    }

    /// Adds a load of wrk, which does not wait for the last answer on each connection, and does not tell
    /// a refusal from an answer that leaves the outcome open.
    pub fn add_counted(&mut self, capacity: &Capacity, connections: usize) {
        self.counted += capacity.accepted;
        self.unknown += capacity.refused + capacity.broken;
        self.not_awaited += count(connections);
    }

    /// How many transactions there are, at least.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.before + count(self.acknowledged.len()) + self.counted
    }
}

/// What a ledger was found to be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// Transactions that the load has made.
    pub transactions: u64,
    /// Those that ended FAILED.
    pub rejected: u64,
    /// What is wrong, in words; nothing if all is right.
    pub wrongs: Vec<String>,
}

/// Holds the ledger of a stack, on which nothing is under way any more, to what is expected.
pub async fn check(stack: &Stack, expected: &Expected) -> anyhow::Result<Findings> {
    let mut connection = stack.database.superuser().acquire().await?;
    sql::prepare(&mut connection).await?;
    sql::remember(&mut connection, &expected.acknowledged).await?;
    let found = sql::count(&mut connection, sql::TRANSACTIONS).await?;
    let made = found.saturating_sub(expected.before);
    let rejected = sql::count(&mut connection, sql::REJECTED).await?;
    let counts = [
        wrong_count(found, expected),
        contradicted_by_api(made, expected),
        (rejected > 0).then(|| format!("{rejected} {REJECTED}")),
    ];
    let mut wrongs: Vec<_> = counts.into_iter().flatten().collect();
    broken_rules(&mut connection, &sql::ALWAYS, &mut wrongs).await?;
    if expected.finished {
        broken_rules(&mut connection, &sql::WHEN_FINISHED, &mut wrongs).await?;
        let dead = sql::count(&mut connection, sql::DEAD_LETTERED).await?;
        wrongs.extend(differs(
            "dead-lettered transactions",
            dead,
            expected.dead_lettered,
        ));
    } else {
        broken_rules(&mut connection, &sql::WHEN_ONLY_ACCEPTED, &mut wrongs).await?;
        let waiting = sql::count(&mut connection, sql::WAITING_EVENTS).await?;
        wrongs.extend(differs("events that wait to be sent", waiting, made));
    }
    Ok(Findings {
        transactions: made,
        rejected,
        wrongs,
    })
}

fn differs(what: &str, found: u64, expected: u64) -> Option<String> {
    (found != expected).then(|| format!("{found} {what} instead of {expected}"))
}

async fn broken_rules(
    connection: &mut PgConnection,
    rules: &[sql::Rule],
    wrongs: &mut Vec<String>,
) -> anyhow::Result<()> {
    for rule in rules {
        let broken = sql::count(connection, rule.counts).await?;
        if broken > 0 {
            wrongs.push(format!("{broken} {}", rule.what));
        }
    }
    Ok(())
}

/// Fewer transactions than acknowledgements were lost; more than may be there besides came from nowhere.
fn wrong_count(found: u64, expected: &Expected) -> Option<String> {
    let least = expected.transactions();
    let most = least + expected.unknown + expected.not_awaited;
    (!(least..=most).contains(&found))
        .then(|| format!("{found} transactions, where there must be {least} to {most}"))
}

/// The answers that wrk did not wait for leave room for as many losses as there were connections. The api
/// has counted those transactions too, each behind its commit, so that its own count leaves no room: it
/// only leaves out those of which it does not know itself whether they were written.
fn contradicted_by_api(made: u64, expected: &Expected) -> Option<String> {
    let least = expected.accepted_by_api?;
    let most = least + expected.unknown;
    (!(least..=most).contains(&made)).then(|| {
        format!(
            "{made} transactions of the load, where by the api's own count there must be {least} to \
             {most}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_acknowledged_transaction_may_be_missing_and_none_too_many() {
        let expected = Expected {
            before: 10,
            acknowledged: vec![Uuid::now_v7(); 5],
            counted: 100,
            unknown: 1,
            not_awaited: 2,
            ..Expected::default()
        };
        assert!(wrong_count(114, &expected).unwrap().contains("115 to 118"));
        assert_eq!(wrong_count(115, &expected), None);
        assert_eq!(wrong_count(118, &expected), None);
        assert!(wrong_count(119, &expected).is_some());
    }

    #[test]
    fn what_nobody_waited_for_may_not_be_lost_either() {
        let expected = Expected {
            counted: 100,
            unknown: 1,
            not_awaited: 16,
            accepted_by_api: Some(110),
            ..Expected::default()
        };
        assert_eq!(wrong_count(109, &expected), None);
        let lost = contradicted_by_api(109, &expected).unwrap();
        assert!(lost.contains("110 to 111"), "{lost}");
        assert_eq!(contradicted_by_api(110, &expected), None);
        assert_eq!(contradicted_by_api(111, &expected), None);
        assert!(contradicted_by_api(112, &expected).is_some());
        let not_asked = Expected {
            accepted_by_api: None,
            ..expected
        };
        assert_eq!(contradicted_by_api(109, &not_asked), None);
    }

    #[test]
    fn an_answer_of_wrk_that_is_no_acceptance_leaves_the_outcome_open() {
        let mut expected = Expected::default();
        let capacity = Capacity {
            accepted: 100,
            refused: 3,
            broken: 2,
            took: std::time::Duration::from_secs(1),
        };
        expected.add_counted(&capacity, 16);
        assert_eq!((expected.unknown, expected.not_awaited), (5, 16));
        assert_eq!(wrong_count(121, &expected), None);
        assert!(wrong_count(122, &expected).is_some());
    }
}
