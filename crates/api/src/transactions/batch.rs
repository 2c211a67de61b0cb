use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Transaction,
    answer::{Accepted, accepted},
    instruction::CreateTransaction,
};
use crate::{
    AppState,
    auth::{Caller, Write},
    extract::{JsonBody, NoIdempotencyHeader, from_json},
    intake::{Intake, NewTransaction, Overloaded},
    openapi::{examples, problems, schemas},
    problem::{Code, FieldError, Problem},
    server::{RequestContext, RequestId},
};

/// Most items of one batch.
const ITEMS_MAX: usize = 1_000;

/// Many payment instructions. Each item is read by itself, so that a wrong one spoils no other.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTransactionBatch {
    #[schema(value_type = Vec<schemas::BatchItem>, min_items = 1, max_items = 1000)]
    transactions: Vec<Box<RawValue>>,
}

/// What became of each item, in their order.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchResults {
    results: Vec<BatchResult>,
}

/// What became of one item: it has either a transaction or a problem.
#[derive(Serialize, ToSchema)]
struct BatchResult {
    /// The item's place in the batch, from 0.
    #[schema(minimum = 0, maximum = 999)]
    index: usize,
    /// What its status would be as a request of its own.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// The transaction: accepted now (202), or before (200).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Transaction)]
    transaction: Option<Transaction>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = schemas::Problem)]
    problem: Option<Box<RawValue>>,
}

/// Post many transactions
///
/// Needs the scope `write`. Each item has a key and a result of its own: 202, 200 for a replay, or a problem. Items of one
/// account are written in the order given. If the queue has no room for all, none is taken.
#[utoipa::path(
    post,
    path = "/v1/transactions/batch",
    tag = "transactions",
    security(("api_key" = ["write"])),
    request_body(content = CreateTransactionBatch, example = json!({ "transactions": [examples::item()] })),
    responses(
        (
            status = 207, description = "The result of each item, in their order.", body = BatchResults,
            example = json!(examples::batch_results())
        ),
        problems::CreateTransactionBatch,
    )
)]
pub(crate) async fn create_transaction_batch(
    _: Caller<Write>,
    _: NoIdempotencyHeader,
    Extension(context): Extension<Arc<RequestContext>>,
    State(state): State<Arc<AppState>>,
    JsonBody(batch): JsonBody<CreateTransactionBatch>,
) -> Result<Response, Problem> {
    check_size(batch.transactions.len())?;
    let items = batch.transactions.iter().map(|item| instruction(item));
    let outcomes = submit(&state.intake, items.collect()).await?;
    let results = outcomes.into_iter().enumerate();
    let results = results
        .map(|(index, outcome)| BatchResult::new(index, outcome, &context.id))
        .collect();
    Ok((StatusCode::MULTI_STATUS, Json(BatchResults { results })).into_response())
}

fn check_size(items: usize) -> Result<(), Problem> {
    if (1..=ITEMS_MAX).contains(&items) {
        return Ok(());
    }
    let rule = format!("must be 1 to {ITEMS_MAX} items, not {items}");
    Err(
        Problem::new(Code::ValidationFailed).errors(vec![FieldError::new(
            "transactions",
            "wrong_length",
            rule,
        )]),
    )
}

fn instruction(item: &RawValue) -> Result<NewTransaction, Problem> {
    let body: CreateTransaction = from_json(item.get().as_bytes())?;
    body.instruct(None).map_err(|problem| match problem.code() {
        // The usual words speak of the header, which a batch must not have.
        Code::IdempotencyKeyMissing => problem.detail(
            "Give each item an idempotency_key: a name for this payment that no other payment of the account bears.",
        ),
        _ => problem,
    })
}

type Outcome = Result<Accepted, Problem>;

/// Hands the readable items to the intake, and puts the answers at the items' places.
async fn submit(
    intake: &Intake,
    items: Vec<Result<NewTransaction, Problem>>,
) -> Result<Vec<Outcome>, Problem> {
    let mut readable = Vec::with_capacity(items.len());
    let places: Vec<Option<Problem>> = items
        .into_iter()
        .map(|item| item.map(|new| readable.push(new)).err())
        .collect();
    let answers = intake.submit_batch(readable).await;
    let mut answers = answers
        .map_err(|Overloaded| Problem::new(Code::Overloaded))?
        .into_iter();
    let outcomes = places.into_iter().map(|unreadable| match unreadable {
        Some(problem) => Err(problem),
        // The intake answers each item it was given.
        None => answers
            .next()
            .map_or_else(|| Err(Code::Internal.into()), accepted),
    });
    Ok(outcomes.collect())
}

impl BatchResult {
    fn new(index: usize, outcome: Outcome, request_id: &RequestId) -> Self {
        match outcome {
            Ok(accepted) => Self {
                index,
                status: accepted.status().as_u16(),
                transaction: Some(accepted.transaction),
                problem: None,
            },
            Err(problem) => Self {
                index,
                status: problem.code().status().as_u16(),
                transaction: None,
                problem: Some(problem.to_raw(request_id.as_str())),
            },
        }
    }
}
