use std::sync::Arc;

use axum::{Json, extract::State};
use common::{
    faults::point,
    types::{FailureReason, Lane, LaneSet},
};
use serde::Deserialize;
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use tracing::info;
use utoipa::ToSchema;
use validator::Validate;

use super::{
    act::{self, Act, Held, sql},
    actor::Actor,
    model::{DeadLetter, DeadLetterId},
};
use crate::{
    AppState,
    extract::{JsonBody, PathId},
    openapi::{examples, problems, schemas},
    problem::{Code, FieldError, Problem},
    rules,
};

/// What is said of a replay.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayDeadLetter {
    /// Why, for the record.
    #[validate(custom(function = rules::reason))]
    #[schema(schema_with = schemas::optional_reason)]
    reason: Option<String>,
}

/// Replay a dead letter
///
/// Needs the scope `operate`. The record is sent again, key, value and headers untouched, to the topic it came from, behind
/// whatever waits there. Its transaction is PROCESSING without a reason until it ends. The event's id stays the same, so it
/// is applied once, however often it is replayed. Where it cannot be applied this time either, it comes back to this letter.
/// A topic that the service's settings do not name any more is not sent to: the letter stays DEAD.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{id}/replay",
    tag = "dead letters",
    security(("api_key" = ["operate"])),
    params((
        "id" = Uuid, Path, description = "The dead letter.", example = json!(examples::DEAD_LETTER_ID)
    )),
    request_body(content = ReplayDeadLetter, example = json!({ "reason": "the ledger's trigger was mended" })),
    responses(
        (
            status = 200, description = "The dead letter, REPLAYED.", body = DeadLetter,
            example = json!(examples::replayed_letter())
        ),
        problems::ReplayDeadLetter,
    )
)]
pub(crate) async fn replay_dead_letter(
    actor: Actor,
    PathId(id): PathId,
    State(state): State<Arc<AppState>>,
    JsonBody(body): JsonBody<ReplayDeadLetter>,
) -> Result<Json<DeadLetter>, Problem> {
    body.validate().map_err(FieldError::refusal)?;
    let reason = body.reason.as_deref();
    let letter = state
        .database
        .run(async |connection| replay(&state, connection, DeadLetterId(id), &actor, reason).await)
        .await?;
    Ok(Json(letter))
}

/// Replays one letter in a transaction of its own.
async fn replay(
    state: &AppState,
    connection: &mut PgConnection,
    id: DeadLetterId,
    actor: &Actor,
    reason: Option<&str>,
) -> Result<DeadLetter, Problem> {
    let mut transaction = connection.begin().await?;
    let held = act::hold(&mut transaction, id).await?;
    send(state, transaction, held, actor, reason).await
}

/// Sends a letter that is held again, and commits.
pub(super) async fn send(
    state: &AppState,
    mut transaction: Transaction<'_, Postgres>,
    held: Held,
    actor: &Actor,
    reason: Option<&str>,
) -> Result<DeadLetter, Problem> {
    let lane = Lane::of(held.account_id);
    let letter = write(state, &mut transaction, held, actor, reason).await?;
    point("api.replay_before_commit");
    transaction.commit().await?;
    point("api.replay_after_commit");
    state.wake_up.hint(LaneSet::from_iter([lane]));
    info!(api_key = &*actor.name, dead_letter_id = %letter.id, reason, "dead letter replayed");
    Ok(letter)
}

async fn write(
    state: &AppState,
    connection: &mut PgConnection,
    held: Held,
    actor: &Actor,
    reason: Option<&str>,
) -> Result<DeadLetter, Problem> {
    check(state, &held)?;
    let account_id = held.account_id;
    if let Some((transaction_id, transaction)) = &held.transaction {
        // Its own event alone: a forged record claims the id of somebody else's and opens nothing.
        if let Some(event_id) = held.letter.event_id {
            sql::open_event(connection, event_id, account_id).await?;
        }
        if transaction.failure_reason == Some(FailureReason::DeadLettered) {
            act::one(sql::resume_transaction(connection, *transaction_id, account_id).await?)?;
        }
    }
    act::one(sql::send_again(connection, &held.letter, account_id).await?)?;
    held.close(connection, Act::Replay, actor, reason).await
}

/// Whether a letter's record may be sent again.
fn check(state: &AppState, held: &Held) -> Result<(), Problem> {
    if let Some((_, transaction)) = &held.transaction
        && transaction.status.is_final()
    {
        return Err(Problem::new(Code::TransactionFinal).detail(format!(
            "The transaction is {}, which is final: nothing is left to apply. Discard the dead letter.",
            transaction.status
        )));
    }
    // A publisher stops at a row for a topic that it does not know, and all of the lane waits behind it.
    let topic = &held.letter.source_topic;
    let (transactions, results) = (&state.transactions_topic, &state.results_topic);
    if topic == transactions || topic == results {
        return Ok(());
    }
    Err(Problem::new(Code::DeadLetterTopicUnknown).detail(format!(
        "The dead letter's record is from topic {topic}, which is neither TRANSACTIONS_TOPIC ({transactions}) nor \
         RESULTS_TOPIC ({results}): give one of them that name again, or discard the dead letter."
    )))
}
