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
    /// Transactions that may exist beside these: their answers did not arrive.
    pub uncertain: u64,
    /// Transactions whose events are given up: they wait for somebody.
    pub dead_lettered: u64,
    /// Whether all of them must have come to their end, and every event have left.
    pub finished: bool,
}

impl Expected {
    /// Adds a load of our own generator.
    pub fn add(&mut self, tally: &Tally) {
        self.acknowledged.extend_from_slice(&tally.acknowledged);
        self.uncertain += tally.unknown;
    }

    /// Adds a load of wrk, which does not wait for the last answer on each connection.
    pub fn add_counted(&mut self, capacity: &Capacity, connections: usize) {
        self.counted += capacity.accepted;
        self.uncertain += capacity.broken + count(connections);
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
    let mut wrongs: Vec<_> = wrong_count(found, expected).into_iter().collect();
    broken_rules(&mut connection, &sql::ALWAYS, &mut wrongs).await?;
    if expected.finished {
        broken_rules(&mut connection, &sql::WHEN_FINISHED, &mut wrongs).await?;
        let dead = sql::count(&mut connection, sql::DEAD_LETTERED).await?;
        if dead != expected.dead_lettered {
            let expected = expected.dead_lettered;
            wrongs.push(format!(
                "{dead} dead-lettered transactions instead of {expected}"
            ));
        }
    }
    Ok(Findings {
        transactions: found.saturating_sub(expected.before),
        rejected: sql::count(&mut connection, sql::REJECTED).await?,
        wrongs,
    })
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

/// Fewer transactions than acknowledgements were lost; more than may be uncertain came from nowhere.
fn wrong_count(found: u64, expected: &Expected) -> Option<String> {
    let (least, most) = (
        expected.transactions(),
        expected.transactions() + expected.uncertain,
    );
    (!(least..=most).contains(&found))
        .then(|| format!("{found} transactions, where there must be {least} to {most}"))
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
            uncertain: 3,
            dead_lettered: 0,
            finished: true,
        };
        assert!(wrong_count(114, &expected).unwrap().contains("115 to 118"));
        assert_eq!(wrong_count(115, &expected), None);
        assert_eq!(wrong_count(118, &expected), None);
        assert!(wrong_count(119, &expected).is_some());
    }
}
