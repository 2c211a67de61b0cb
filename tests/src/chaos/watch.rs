//! Somebody who looks at transactions all the time: a final state never changes, and none goes back.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Row};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{fleet::Fleet, seed::Dice};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How many transactions of before are looked at again each time.
const AGAIN: usize = 300;
/// The states of the youngest, and of some that were seen before.
const STATES: &str = "
SELECT id, status, failure_reason, processed_at FROM transactions
 WHERE id IN (SELECT id FROM transactions ORDER BY id DESC LIMIT 1000) OR id = ANY($1)";

/// A transaction's state as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    status: String,
    failure_reason: Option<String>,
    processed_at: Option<DateTime<Utc>>,
}

impl Seen {
    fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "PROCESSED" | "FAILED")
    }

    /// Whether a transaction may have been like this before it was like that.
    fn may_become(&self, next: &Self) -> bool {
        if self.is_final() {
            return self == next;
        }
        self.status == "PENDING" || next.status != "PENDING"
    }
}

/// Looks until the token is cancelled, and then at everything once more; what is wrong goes to the
/// fleet's notes.
pub(super) async fn watch(fleet: &Fleet, mut dice: Dice, stop: &CancellationToken) {
    let mut seen: HashMap<Uuid, Seen> = HashMap::new();
    let mut ids: Vec<Uuid> = Vec::new();
    let mut is_last = false;
    while !is_last {
        is_last = stop.run_until_cancelled(sleep(PAUSE)).await.is_none();
        let again: Vec<_> = if is_last {
            ids.clone()
        } else {
            let some = 0..AGAIN.min(ids.len());
            some.map(|_| ids[dice.index(ids.len())]).collect()
        };
        // The server may be down: then there is nothing to see.
        let Ok(states) = states(fleet.stack.database.superuser(), &again).await else {
            continue;
        };
        for (id, now) in states {
            match seen.insert(id, now.clone()) {
                None => ids.push(id),
                Some(before) if before.may_become(&now) => {}
                Some(before) => fleet.wrong(format!("{id} was {before:?} and is {now:?}")),
            }
        }
    }
}

async fn states(database: &PgPool, again: &[Uuid]) -> sqlx::Result<Vec<(Uuid, Seen)>> {
    let rows = sqlx::query(STATES).bind(again).fetch_all(database).await?;
    let seen = rows.iter().map(|row| {
        let state = Seen {
            status: row.get("status"),
            failure_reason: row.get("failure_reason"),
            processed_at: row.get("processed_at"),
        };
        (row.get("id"), state)
    });
    Ok(seen.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: &str, failure_reason: Option<&str>) -> Seen {
        Seen {
            status: status.to_owned(),
            failure_reason: failure_reason.map(str::to_owned),
            processed_at: None,
        }
    }

    #[test]
    fn a_final_state_stays_and_no_state_goes_back() {
        let (pending, processing) = (seen("PENDING", None), seen("PROCESSING", None));
        let (processed, failed) = (seen("PROCESSED", None), seen("FAILED", Some("discarded")));
        let dead = seen("PROCESSING", Some("dead_lettered"));
        assert!(pending.may_become(&processed) && pending.may_become(&dead));
        assert!(dead.may_become(&processing) && dead.may_become(&failed));
        assert!(!processing.may_become(&pending));
        assert!(!processed.may_become(&failed) && !failed.may_become(&dead));
        assert!(!failed.may_become(&seen("FAILED", Some("insufficient_funds"))));
    }
}
