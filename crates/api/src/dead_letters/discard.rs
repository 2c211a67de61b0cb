use std::sync::Arc;

use axum::{Json, extract::State};
use common::{
    outbox::{self, OutboxEvent},
    types::{
        AccountId, EventId, EventType, FailureReason, Lane, LaneSet, SCHEMA_VERSION,
        TransactionCreated, TransactionFailed, TransactionId,
    },
};
use metrics::{counter, describe_counter};
use serde::Deserialize;
use sqlx::{Connection, PgConnection};
use tracing::info;
use utoipa::ToSchema;
use validator::Validate;

use super::{
    act::{
        self, Act, Held,
        sql::{self, Waiting},
    },
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

/// What is said of a discard.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiscardDeadLetter {
    /// Why, for the record.
    #[validate(custom(function = rules::reason))]
    #[schema(schema_with = schemas::reason)]
    reason: String,
}

/// Discard a dead letter
///
/// Needs the scope `operate`. It is never applied, and cannot be replayed any more. The transaction that waits for it ends FAILED
/// with the reason `discarded`, and its event tells so: whoever pays may pay again. A letter without such a transaction (a
/// forged or unreadable record, a result, or a copy of a rejection, whose transaction is final) is put aside, and nothing else happens.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{id}/discard",
    tag = "dead letters",
    security(("api_key" = ["operate"])),
    params((
        "id" = Uuid, Path, description = "The dead letter.", example = json!(examples::DEAD_LETTER_ID)
    )),
    request_body(content = DiscardDeadLetter, example = json!({ "reason": "the customer paid another way" })),
    responses(
        (
            status = 200, description = "The dead letter, DISCARDED.", body = DeadLetter,
            example = json!(examples::discarded_letter())
        ),
        problems::DiscardDeadLetter,
    )
)]
pub(crate) async fn discard_dead_letter(
    actor: Actor,
    PathId(id): PathId,
    State(state): State<Arc<AppState>>,
    JsonBody(body): JsonBody<DiscardDeadLetter>,
) -> Result<Json<DeadLetter>, Problem> {
    body.validate().map_err(FieldError::refusal)?;
    let letter = state
        .database
        .run(async |connection| {
            discard(&state, connection, DeadLetterId(id), &actor, &body.reason).await
        })
        .await?;
    Ok(Json(letter))
}

async fn discard(
    state: &AppState,
    connection: &mut PgConnection,
    id: DeadLetterId,
    actor: &Actor,
    reason: &str,
) -> Result<DeadLetter, Problem> {
    let mut transaction = connection.begin().await?;
    let held = act::hold(&mut transaction, id).await?;
    let lane = Lane::of(held.account_id);
    let ended = end(&mut transaction, &held, &state.results_topic).await?;
    let letter = held
        .close(&mut transaction, Act::Discard, actor, Some(reason))
        .await?;
    transaction.commit().await?;
    if let Some(ended) = ended {
        state.wake_up.hint(LaneSet::from_iter([lane]));
        count(&ended);
    }
    info!(api_key = &*actor.name, dead_letter_id = %id, reason, "dead letter discarded");
    Ok(letter)
}

/// Ends the transaction that waits for the letter, if one does, and tells of it.
async fn end(
    connection: &mut PgConnection,
    held: &Held,
    results_topic: &str,
) -> Result<Option<TransactionFailed>, Problem> {
    let Some((id, transaction)) = &held.transaction else {
        return Ok(None);
    };
    if transaction.status.is_final() {
        return Ok(None);
    }
    act::one(sql::discard_transaction(connection, *id, held.account_id).await?)?;
    let failed = failed(*id, held.account_id, transaction)?;
    let event = OutboxEvent {
        event_id: EventId::new(),
        account_id: held.account_id,
        transaction_id: *id,
        event_type: EventType::TransactionFailed,
        payload: serde_json::to_string(&failed)
            .map_err(|error| Problem::new(Code::Internal).because(error))?,
    };
    act::one(outbox::insert(connection, results_topic, &[event]).await?)?;
    Ok(Some(failed))
}

fn failed(
    transaction_id: TransactionId,
    account_id: AccountId,
    transaction: &Waiting,
) -> Result<TransactionFailed, Problem> {
    let currency = transaction.currency.parse();
    Ok(TransactionFailed {
        transaction: TransactionCreated {
            schema_version: SCHEMA_VERSION,
            transaction_id,
            account_id,
            amount_cents: transaction.amount_cents,
            currency: currency.map_err(|error: common::types::UnknownCurrency| {
                Problem::new(Code::Internal).because(error)
            })?,
            transaction_type: transaction.transaction_type,
        },
        failure_reason: FailureReason::Discarded,
    })
}

/// Says what is counted here, for the scrape's HELP lines.
pub(super) fn describe_metrics() {
    describe_counter!(
        "transactions_failed_total",
        "Transactions refused, by reason"
    );
}

/// Counted as the worker counts those that it ends, so that accepted ones are processed, failed or
/// on their way.
fn count(failed: &TransactionFailed) {
    counter!(
        "transactions_failed_total",
        "type" => failed.transaction.transaction_type.as_str(),
        "currency" => failed.transaction.currency.as_str().to_owned(),
        "reason" => failed.failure_reason.as_str()
    )
    .increment(1);
}
