use std::sync::Arc;

use axum::{Json, extract::State};
use sqlx::PgConnection;

use super::{
    model::{DeadLetterDetail, DeadLetterId},
    sql,
};
use crate::{
    AppState,
    auth::{Caller, Operate},
    extract::PathId,
    openapi::{examples, problems},
    problem::{Code, Problem},
};

/// How many actions are shown.
const ACTIONS_MAX: i64 = 200;

/// Inspect a dead letter
///
/// Needs the scope `operate`: the record is shown as it was, key, value and headers, with what was done to it.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/{id}",
    tag = "dead letters",
    security(("api_key" = ["operate"])),
    params((
        "id" = Uuid, Path, description = "The dead letter.", example = json!(examples::DEAD_LETTER_ID)
    )),
    responses(
        (
            status = 200, description = "The dead letter.", body = DeadLetterDetail,
            example = json!(examples::letter_detail())
        ),
        problems::GetDeadLetter,
    )
)]
pub(crate) async fn get_dead_letter(
    _: Caller<Operate>,
    PathId(id): PathId,
    State(state): State<Arc<AppState>>,
) -> Result<Json<DeadLetterDetail>, Problem> {
    let found = state
        .database
        .run(async |connection| inspect(connection, DeadLetterId(id)).await)
        .await?;
    found
        .map(Json)
        .ok_or(Problem::new(Code::DeadLetterNotFound))
}

async fn inspect(
    connection: &mut PgConnection,
    id: DeadLetterId,
) -> Result<Option<DeadLetterDetail>, sqlx::Error> {
    let Some(letter) = sql::find(connection, id).await? else {
        return Ok(None);
    };
    let contents = sql::contents(connection, id).await?;
    let actions = sql::actions(connection, id, ACTIONS_MAX).await?;
    Ok(Some(DeadLetterDetail {
        letter,
        key: contents.key.map(Into::into),
        value: contents.value.map(Into::into),
        headers: contents.headers.0.0.into_iter().map(Into::into).collect(),
        actions,
    }))
}
