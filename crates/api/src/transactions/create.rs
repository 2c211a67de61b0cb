use std::sync::Arc;

use axum::extract::State;

use super::{
    answer::{Accepted, accepted},
    instruction::CreateTransaction,
};
use crate::{
    AppState,
    auth::{Caller, Write},
    extract::{IdempotencyHeader, JsonBody},
    problem::Problem,
};

/// Post a transaction
///
/// Accepted is durable: 202 is sent after the commit. The ledger is posted to within milliseconds;
/// GET the transaction to see how it ended. A repeat with the same key and content is answered 200
/// with the original transaction in its present state, and posts nothing.
#[utoipa::path(post, path = "/v1/transactions", tag = "transactions")]
pub(crate) async fn create_transaction(
    _: Caller<Write>,
    IdempotencyHeader(key): IdempotencyHeader,
    State(state): State<Arc<AppState>>,
    JsonBody(body): JsonBody<CreateTransaction>,
) -> Result<Accepted, Problem> {
    let new = body.instruct(key)?;
    accepted(state.intake.submit(new).await)
}
