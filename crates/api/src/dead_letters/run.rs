//! One run of a replay of many: letter by letter, each in a transaction of its own. A letter that cannot
//! be replayed now holds up none behind it.

use std::collections::HashSet;

use common::{
    db::{ErrorClass, is_serialization_failure},
    types::AccountId,
};
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::{
    act,
    actor::Actor,
    many::{DeadLettersReplayed, SkippedDeadLetter, open},
    model::DeadLetterId,
    order::Run,
    replay::send,
    sql::{self, Open},
};
use crate::{AppState, problem::Problem};

/// How many letters one run takes on.
const RUN_MAX: usize = 200;
/// Why a letter is left out whose account somebody else holds. A replay of it alone waits for longer, so
/// no problem has this code.
pub(crate) const ACCOUNT_BUSY: &str = "account_busy";

/// What became of a letter.
enum Ended {
    Replayed,
    /// It stays as it is, for the reason with this code.
    Skipped(&'static str),
    /// Somebody else acted on it since it was found, and it died again: the dry run did not count that.
    NotMeant,
}

/// Replays, until enough is done, half of the request's time has passed, or none are left.
pub(super) async fn replay_many(
    state: &AppState,
    connection: &mut PgConnection,
    run: &Run,
    actor: &Actor,
) -> Result<DeadLettersReplayed, Problem> {
    let deadline = Instant::now() + state.server.request_timeout() / 2;
    let looked_at_max = state.list_examined_rows_max as usize;
    let (open, more) = open(connection, &run.filter, run.behind, looked_at_max).await?;
    let mut done = DeadLettersReplayed::default();
    let mut busy = HashSet::new();
    let mut last = run.behind;
    for letter in &open {
        if done.matched == RUN_MAX || Instant::now() >= deadline {
            done.next_cursor = Some(run.cursor(last));
            return Ok(done);
        }
        last = letter.id.0;
        if !run.means(letter.class, letter.dead_at) {
            continue;
        }
        // Its later letters would pass the one that was left out, and each would wait as long.
        let ended = if busy.contains(&letter.account_id) {
            Ended::Skipped(ACCOUNT_BUSY)
        } else {
            replay(state, connection, letter.id, run, actor).await?
        };
        if matches!(ended, Ended::Skipped(ACCOUNT_BUSY)) {
            busy.extend(account_of(letter));
        }
        done.count(letter.id, &ended);
    }
    done.next_cursor = more.then(|| run.cursor(last));
    Ok(done)
}

/// Letters of no account share nothing but the id that stands for none.
fn account_of(letter: &Open) -> Option<AccountId> {
    Some(letter.account_id).filter(|id| *id != AccountId(Uuid::nil()))
}

impl DeadLettersReplayed {
    fn count(&mut self, id: DeadLetterId, ended: &Ended) {
        match *ended {
            Ended::NotMeant => return,
            Ended::Replayed => self.replayed += 1,
            Ended::Skipped(code) => self.skipped.push(SkippedDeadLetter { id, code }),
        }
        self.matched += 1;
    }
}

/// Replays one letter, if it can be.
async fn replay(
    state: &AppState,
    connection: &mut PgConnection,
    id: DeadLetterId,
    run: &Run,
    actor: &Actor,
) -> Result<Ended, Problem> {
    let problem = match replay_meant(state, connection, id, run, actor).await {
        Ok(ended) => return Ok(ended),
        Err(problem) => problem,
    };
    let Some(code) = skip_code(&problem) else {
        return Err(problem);
    };
    if let Some(cause) = problem.source() {
        let error = format!("{cause:#}");
        warn!(dead_letter_id = %id, code, error, "a dead letter was left out of a replay of many");
    }
    Ok(Ended::Skipped(code))
}

async fn replay_meant(
    state: &AppState,
    connection: &mut PgConnection,
    id: DeadLetterId,
    run: &Run,
    actor: &Actor,
) -> Result<Ended, Problem> {
    let mut transaction = connection.begin().await?;
    sql::wait_briefly(&mut transaction).await?;
    let held = act::hold(&mut transaction, id).await?;
    if !run.means(held.letter.class, held.letter.dead_at) {
        transaction.rollback().await?;
        return Ok(Ended::NotMeant);
    }
    send(state, transaction, held, actor, run.reason.as_deref()).await?;
    Ok(Ended::Replayed)
}

/// Why a letter is left out, as far as the cause is its own; none where no other could be replayed
/// either.
fn skip_code(problem: &Problem) -> Option<&'static str> {
    let code = problem.code().as_str();
    let Some(error) = problem.database_error() else {
        return Some(code);
    };
    let sqlstate = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    match sqlstate.as_deref() {
        // lock_not_available
        Some("55P03") => Some(ACCOUNT_BUSY),
        // query_canceled: a statement of its own took too long.
        Some("57014") => Some(code),
        _ if is_serialization_failure(error) => Some(code),
        _ => (ErrorClass::of(error) == ErrorClass::Data).then_some(code),
    }
}
