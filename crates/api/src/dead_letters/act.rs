//! What replaying and discarding share: the locks, what is decided behind them, and the record of it.

pub(super) mod sql;

use common::types::{AccountId, DeadLetterState, TransactionId};
use sqlx::PgConnection;

use super::{
    actor::Actor,
    model::{DeadLetter, DeadLetterId},
    sql as letters,
};
use crate::problem::{Code, Problem};

/// A letter in state DEAD that nobody else can act on, and whose account nobody else can post for,
/// until the database transaction ends.
pub(super) struct Held {
    pub(super) letter: DeadLetter,
    /// The account that it is filed under; the nil id where none could be read.
    pub(super) account_id: AccountId,
    /// The transaction that waits for it, or was rejected.
    pub(super) transaction: Option<(TransactionId, sql::Waiting)>,
}

/// Locks a letter in state DEAD.
///
/// The account comes first, as for everybody who posts for it: a worker that has read the transaction
/// is waited for, and one that comes later sees what was done. Each statement has a snapshot of its
/// own (READ COMMITTED), so what is read behind a lock is what its last holder left.
pub(super) async fn hold(connection: &mut PgConnection, id: DeadLetterId) -> Result<Held, Problem> {
    let account_id = sql::account_of(connection, id)
        .await?
        .ok_or(Problem::new(Code::DeadLetterNotFound))?;
    sql::lock_account(connection, account_id).await?;
    let letter = letters::lock(connection, id, account_id).await?;
    if letter.state != DeadLetterState::Dead {
        return Err(Problem::new(Code::DeadLetterNotDead).detail(format!(
            "The dead letter is {}: only a DEAD one can be replayed or discarded.",
            letter.state
        )));
    }
    let transaction = match letter.transaction_id {
        Some(id) => sql::lock_transaction(connection, id, account_id)
            .await?
            .map(|waiting| (id, waiting)),
        None => None,
    };
    Ok(Held {
        letter,
        account_id,
        transaction,
    })
}

/// What becomes of a letter in state DEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Replay,
    Discard,
}

impl Act {
    /// As it is recorded.
    const fn name(self) -> &'static str {
        match self {
            Self::Replay => "REPLAY",
            Self::Discard => "DISCARD",
        }
    }

    const fn leaves(self) -> DeadLetterState {
        match self {
            Self::Replay => DeadLetterState::Replayed,
            Self::Discard => DeadLetterState::Discarded,
        }
    }
}

impl Held {
    /// Gives the letter its new state, and records who did it, when and why.
    pub(super) async fn close(
        self,
        connection: &mut PgConnection,
        act: Act,
        actor: &Actor,
        reason: Option<&str>,
    ) -> Result<DeadLetter, Problem> {
        let Self {
            letter, account_id, ..
        } = self;
        let state = act.leaves();
        one(sql::set_state(connection, letter.id, account_id, state).await?)?;
        let action = sql::Action {
            name: act.name(),
            actor: &actor.name,
            reason,
            request_id: &actor.request_id,
        };
        one(sql::record(connection, letter.id, account_id, &action).await?)?;
        Ok(DeadLetter { state, ..letter })
    }
}

/// Behind the locks each statement writes its one row; anything else is rolled back.
pub(super) fn one(rows: u64) -> Result<(), Problem> {
    if rows == 1 {
        return Ok(());
    }
    Err(Problem::new(Code::Internal).because(anyhow::anyhow!(
        "a dead letter's statement wrote {rows} rows instead of one"
    )))
}
