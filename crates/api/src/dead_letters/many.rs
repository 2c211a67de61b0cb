//! Replaying many letters: first a dry run, which counts them, then runs, which replay them.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    actor::Actor,
    filter::Filter,
    model::{DeadLetter, DeadLetterId},
    order::{Asked, DryRun, ReplayDeadLetters},
    run::replay_many,
    sql::{self, Open},
};
use crate::{
    AppState,
    extract::JsonBody,
    openapi::{examples, problems, schemas},
    problem::Problem,
};

/// How many letters a dry run looks at.
const LOOKED_AT_MAX: usize = 10_000;
/// How many of those that it means it shows.
const SAMPLE_MAX: usize = 20;

/// What a replay of many would do, or did.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct DeadLettersReplayed {
    /// Whether nothing was done.
    dry_run: bool,
    /// How many dead letters the filter means; of a run, those that it took on now.
    #[schema(minimum = 0)]
    pub(super) matched: usize,
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
    pub(super) replayed: usize,
    /// Those that could not be replayed, which stay as they are.
    pub(super) skipped: Vec<SkippedDeadLetter>,
    /// Of a run: where the next one goes on; null at the end.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

/// A dead letter that was not replayed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SkippedDeadLetter {
    /// Which.
    #[schema(value_type = uuid::Uuid)]
    pub(super) id: DeadLetterId,
    /// Why.
    #[schema(schema_with = schemas::skip_code)]
    pub(super) code: &'static str,
}

/// Replay many dead letters
///
/// Needs the scope `operate`. First a dry run: it counts the DEAD letters that the filter means, shows some, and gives `until`. Then runs with
/// the same filter and that `until`: each replays up to 200, the oldest first, each in a transaction of its own, and gives a
/// cursor for the next. Copies of rejections are never among them, because their transactions are final; nor is what died, or died
/// again, behind the dry run. A letter that cannot be replayed now is left out and listed, and the run goes on: it stays DEAD, for a later
/// replay. A run that is cut off may be sent again.
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
            let replay = async |connection: &mut PgConnection| {
                replay_many(&state, connection, &run, &actor).await
            };
            state.database.run(replay).await?
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
    let meant = open
        .iter()
        .filter(|letter| filter.means(letter.class, letter.dead_at, until));
    let meant: Vec<Uuid> = meant.map(|letter| letter.id.0).collect();
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

/// Letters in state DEAD behind an id, and whether there are more than these.
pub(super) async fn open(
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
