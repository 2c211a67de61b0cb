//! One attempt at parked events: one transaction.

use std::time::Duration;

use common::{
    faults,
    types::{AccountId, Lane, LaneSet, TransactionCreated},
};
use sqlx::{Connection, PgConnection, Postgres, Transaction};

use super::{
    queue::{self, Head, Parked, Plan},
    sql,
};
use crate::{
    config::KafkaSettings, ledger::Posting, metrics::Tally, posting, rejections, slice::ApplyError,
};

/// How long a held account is waited for: longer than a slice takes, and not so long that others' queues
/// wait much for somebody who hangs.
const WAIT: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '1s'";

/// What to do about accounts that others hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Take others.
    PassBy,
    /// Wait for that of the first head, and take no other.
    Wait,
}

/// What came of an attempt.
pub(super) enum Attempt {
    /// Others hold the accounts, or were faster.
    Busy,
    /// It is committed.
    Done(Done),
    /// One of the events has no transaction: it can never be applied. Nothing was written.
    WithoutRow {
        /// What was tried, in order.
        events: Vec<Parked>,
    },
    /// Nothing was written.
    Failed {
        /// What was tried, in order.
        events: Vec<Parked>,
        error: ApplyError,
    },
}

impl Attempt {
    /// The account whose events were tried first; none if others hold them all.
    pub(super) fn first(&self) -> Option<AccountId> {
        match self {
            Self::Busy => None,
            Self::Done(done) => done.first,
            Self::WithoutRow { events } | Self::Failed { events, .. } => {
                events.first().map(|event| event.account)
            }
        }
    }
}

/// What an attempt committed.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// How the transactions ended, in order, and how long ago they had been accepted.
    pub(super) ended: Vec<(TransactionCreated, Posting, Duration)>,
    /// Events that had ended before, and left their queues.
    pub(super) duplicates: usize,
    /// How many of the events had failed before.
    pub(super) retries: usize,
    /// How many copies of rejections were written.
    pub(super) copies: usize,
    /// The account whose events were the first.
    pub(super) first: Option<AccountId>,
}

impl Done {
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally {
            duplicate: self.duplicates,
            ..Tally::default()
        };
        for (_, posting, _) in &self.ended {
            match posting {
                Posting::Applied(_) => tally.applied += 1,
                Posting::Rejected(_) => tally.rejected += 1,
            }
        }
        tally
    }

    /// The lanes that have events to send.
    pub(super) fn lanes(&self) -> LaneSet {
        let claims = self.ended.iter().map(|(claim, ..)| claim);
        claims.map(|claim| Lane::of(claim.account_id)).collect()
    }
}

/// Applies the beginnings of the queues of these heads, so many events together, as a slice does: behind
/// the locks of their accounts, decided event by event in order. It is committed when this returns that
/// it is done; else nothing is written.
///
/// # Errors
/// Of what comes before there is anything to apply.
pub(super) async fn attempt(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    heads: &[Head],
    events_max: i64,
    manner: Manner,
) -> Result<Attempt, ApplyError> {
    let heads = match manner {
        Manner::PassBy => heads,
        Manner::Wait => &heads[..heads.len().min(1)],
    };
    let begun = match manner {
        Manner::PassBy => connection.begin().await,
        Manner::Wait => wait_for(connection, heads).await,
    };
    let mut transaction = match begun {
        Err(error) if is_timeout(&error) => return Ok(Attempt::Busy),
        begun => begun?,
    };
    let accounts_max = queue::accounts_for(heads, events_max);
    let accounts = sql::take_accounts(&mut transaction, heads, accounts_max).await?;
    let waiting = queue::share(&accounts, events_max);
    let parked = sql::queues(&mut transaction, &waiting).await?;
    let plan = queue::plan(&accounts, &parked);
    if plan.events.is_empty() {
        transaction.rollback().await?;
        return Ok(Attempt::Busy);
    }
    if plan.is_without_row {
        transaction.rollback().await?;
        return Ok(Attempt::WithoutRow {
            events: plan.events,
        });
    }
    let written = match write(&mut transaction, kafka, &plan).await {
        Ok(done) => {
            faults::point("worker.retry_before_commit");
            transaction
                .commit()
                .await
                .map(|()| done)
                .map_err(Into::into)
        }
        Err(error) => Err(error),
    };
    Ok(match written {
        Ok(done) => {
            faults::point("worker.retry_after_commit");
            Attempt::Done(done)
        }
        Err(error) => Attempt::Failed {
            events: plan.events,
            error,
        },
    })
}

/// Begins by waiting for the account of these heads. It is one, and no lock is held yet, so the wait is
/// never one of a circle.
///
/// READ COMMITTED, whatever the pool's level: under SERIALIZABLE the snapshot is older than the wait, and
/// a wait for somebody who changes the account, as slices do that park, always ends in 40001. What makes
/// this right is the account's lock: every statement behind it sees all that earlier holders did (see
/// `slice::apply`), and slices that waited for this one are told so, at their level.
async fn wait_for<'c>(
    connection: &'c mut PgConnection,
    heads: &[Head],
) -> Result<Transaction<'c, Postgres>, sqlx::Error> {
    let mut transaction = connection.begin_with(WAIT).await?;
    for head in heads {
        sql::lock_account(&mut transaction, head.account).await?;
    }
    Ok(transaction)
}

/// The wait took too long: `lock_not_available`, or `query_canceled` where statements may take less.
fn is_timeout(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    let code = error.and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("55P03" | "57014"))
}

async fn write(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    plan: &Plan,
) -> Result<Done, ApplyError> {
    let posted = posting::post(connection, &kafka.results_topic, &plan.postings, true).await?;
    if !posted.as_planned() {
        return Err(ApplyError::RowsAffected {
            planned: posted.planned,
            written: posted.written,
        });
    }
    let copies = if kafka.dead_letter_rejections {
        rejections::copy_parked(connection, &kafka.dead_letters_topic, &plan.rejected).await?
    } else {
        0
    };
    let written = sql::remove(connection, &plan.removals).await?;
    ApplyError::check("parked_events", plan.removed.events, written.events)?;
    ApplyError::check("accounts", plan.removed.accounts, written.accounts)?;
    ApplyError::check("parked_events", plan.removed.heads, written.heads)?;
    let ended = plan.postings.iter().map(|(claim, posting)| {
        let age = posted.age(claim.transaction_id);
        (*claim, *posting, age)
    });
    Ok(Done {
        ended: ended.collect(),
        duplicates: plan.events.len() - plan.postings.len(),
        retries: plan
            .events
            .iter()
            .filter(|event| event.attempts > 0)
            .count(),
        copies,
        first: plan.events.first().map(|event| event.account),
    })
}

/// Writes down that a head failed once more, and when it is tried again, by the database's clock;
/// answers whether it was still the head that failed.
pub(super) async fn record_failure(
    connection: &mut PgConnection,
    head: &Parked,
    pause: Duration,
    message: &str,
) -> Result<bool, ApplyError> {
    // Whatever the pool's level: the account's lock and the number of attempts decide, not a snapshot.
    let mut transaction = connection
        .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
        .await?;
    sql::lock_account(&mut transaction, head.account).await?;
    let written = sql::record_failure(&mut transaction, head, pause, message).await?;
    transaction.commit().await?;
    Ok(written)
}
