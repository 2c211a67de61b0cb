//! Replaying many letters: first a dry run, which counts them, then runs, which replay them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    actor::Actor,
    filter::Filter,
    model::{DeadLetter, DeadLetterId},
    order::{Asked, DryRun, ReplayDeadLetters, Run},
    replay::replay,
    sql::{self, Open},
};
use crate::{
    AppState,
    extract::JsonBody,
    openapi::{examples, problems, schemas},
    problem::{Code, Problem},
};

/// How many letters a dry run looks at.
const LOOKED_AT_MAX: usize = 10_000;
/// How many of those that it means it shows.
const SAMPLE_MAX: usize = 20;
/// How many letters one run takes on.
const RUN_MAX: usize = 200;

/// What a replay of many would do, or did.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct DeadLettersReplayed {
    /// Whether nothing was done.
    dry_run: bool,
    /// How many dead letters the filter means; of a run, those that it took on now.
    #[schema(minimum = 0)]
    matched: usize,
    /// Whether there are more open letters than a dry run counts, so that `matched` may be too low.
    matched_is_capped: bool,
    /// Some of them, the oldest; of a dry run only.
    #[schema(max_items = 20)]
    sample: Vec<DeadLetter>,
    /// Of a dry run: what a run with the same filter has to send. Whatever died later is not replayed.
    #[schema(required)]
    until: Option<String>,
    /// How many were replayed now.
    #[schema(minimum = 0)]
    replayed: usize,
    /// Those that could not be replayed, which stay as they are.
    skipped: Vec<SkippedDeadLetter>,
    /// Of a run: where the next one goes on; null at the end.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A dead letter that was not replayed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SkippedDeadLetter {
    /// Which.
    #[schema(value_type = uuid::Uuid)]
    id: DeadLetterId,
    /// Why, as the code of the problem that a replay of it alone would be answered with.
    #[schema(schema_with = schemas::skip_code)]
    code: &'static str,
}

/// Replay many dead letters
///
/// Needs the scope `operate`. First a dry run: it counts the DEAD letters that the filter means, shows some, and gives `until`. Then runs with
/// the same filter and that `until`: each replays up to 200, the oldest first, each in a transaction of its own, and gives a
/// cursor for the next. Copies of rejections are never among them, because their transactions are final; nor is what died, or died
/// again, behind the dry run. A run that is cut off may be sent again.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/replay",
    tag = "dead letters",
    security(("api_key" = ["operate"])),
    request_body(
        content = ReplayDeadLetters,
        example = json!({ "class": "retries_exhausted", "dead_from": "2026-11-21T00:00:00Z", "dry_run": true })
    ),
    responses(
        (
            status = 200, description = "What would be done, or was done.", body = DeadLettersReplayed,
            example = json!(examples::dry_run())
        ),
        problems::ReplayDeadLetters,
    )
)]
pub(crate) async fn replay_dead_letters(
    actor: Actor,
    State(state): State<Arc<AppState>>,
    JsonBody(body): JsonBody<ReplayDeadLetters>,
) -> Result<Json<DeadLettersReplayed>, Problem> {
    let done = match Asked::try_from(body)? {
        Asked::DryRun(dry_run) => {
            let look = async |connection: &mut PgConnection| look(connection, &dry_run).await;
            state.database.run(look).await?
        }
        Asked::Run(run) => {
            let act =
                async |connection: &mut PgConnection| act(&state, connection, &run, &actor).await;
            state.database.run(act).await?
        }
    };
    Ok(Json(done))
}

/// Counts what a filter means.
async fn look(
    connection: &mut PgConnection,
    dry_run: &DryRun,
) -> Result<DeadLettersReplayed, Problem> {
    let filter = &dry_run.filter;
    let until = sql::now(connection).await?;
    let (open, more) = open(connection, filter, Uuid::nil(), LOOKED_AT_MAX).await?;
    let meant: Vec<Uuid> = meant(&open, filter, until).map(|open| open.id.0).collect();
    let sample = &meant[..meant.len().min(SAMPLE_MAX)];
    Ok(DeadLettersReplayed {
        dry_run: true,
        matched: meant.len(),
        matched_is_capped: more,
        sample: sql::find_all(connection, sample).await?,
        until: Some(dry_run.until(until)),
        ..DeadLettersReplayed::default()
    })
}

/// Replays, until enough is done, half of the request's time has passed, or none are left.
async fn act(
    state: &AppState,
    connection: &mut PgConnection,
    run: &Run,
    actor: &Actor,
) -> Result<DeadLettersReplayed, Problem> {
    let deadline = Deadline::new(state.server.request_timeout() / 2);
    let looked_at_max = state.list_examined_rows_max as usize;
    let (open, more) = open(connection, &run.filter, run.behind, looked_at_max).await?;
    let mut done = DeadLettersReplayed::default();
    let mut last = run.behind;
    for letter in &open {
        if done.matched == RUN_MAX || deadline.has_passed() {
            done.next_cursor = Some(run.cursor(last));
            return Ok(done);
        }
        last = letter.id.0;
        if run.filter.means(letter, run.until) {
            done.matched += 1;
            match replay(state, connection, letter.id, actor, run.reason.as_deref()).await {
                Ok(_) => done.replayed += 1,
                Err(problem) => done.skipped.push(skipped(letter.id, problem)?),
            }
        }
    }
    done.next_cursor = more.then(|| run.cursor(last));
    Ok(done)
}

/// Letters in state DEAD behind an id, and whether there are more than these.
async fn open(
    connection: &mut PgConnection,
    filter: &Filter,
    behind: Uuid,
    rows_max: usize,
) -> Result<(Vec<Open>, bool), Problem> {
    let limit = i64::try_from(rows_max)
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    let mut open = sql::open_behind(connection, filter.account_id, behind, limit).await?;
    let more = open.len() > rows_max;
    open.truncate(rows_max);
    Ok((open, more))
}

fn meant<'a>(
    open: &'a [Open],
    filter: &'a Filter,
    until: DateTime<Utc>,
) -> impl Iterator<Item = &'a Open> {
    open.iter()
        .filter(move |letter| filter.means(letter, until))
}

/// Somebody else was here, the transaction was final, or the topic has another name now: the others
/// can be replayed all the same.
fn skipped(id: DeadLetterId, problem: Problem) -> Result<SkippedDeadLetter, Problem> {
    match problem.code() {
        code
        @ (Code::DeadLetterNotDead | Code::DeadLetterTopicUnknown | Code::TransactionFinal) => {
            Ok(SkippedDeadLetter {
                id,
                code: code.as_str(),
            })
        }
        _ => Err(problem),
    }
}

struct Deadline(Instant, Duration);

impl Deadline {
    fn new(limit: Duration) -> Self {
        Self(Instant::now(), limit)
    }

    fn has_passed(&self) -> bool {
        self.0.elapsed() >= self.1
    }
}
