use std::sync::Arc;

use axum::extract::State;

use super::{
    Transaction,
    answer::{Accepted, accepted},
    instruction::CreateTransaction,
};
use crate::{
    AppState,
    auth::{Caller, Write},
    extract::{IdempotencyHeader, JsonBody},
    openapi::{examples, problems},
    problem::Problem,
};

/// Post a transaction
///
/// Needs the scope `write`. Accepted is durable: 202 is sent after the commit. The ledger is posted to within milliseconds;
/// GET the transaction to see how it ended. A repeat with the same key and content is answered 200
/// with the original transaction in its present state, and posts nothing.
#[utoipa::path(
    post,
    path = "/v1/transactions",
    tag = "transactions",
    security(("api_key" = ["write"])),
    params((
        "Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 512,
        pattern = r#"^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-~]([ -~]{0,253}[!-~])?)$"#, example = "order-4711",
        description = "The client's name for this payment, unique for its account: 1 to 255 printable ASCII \
                       characters, bare or as a quoted string (draft-ietf-httpapi-idempotency-key-header). \
                       Needed, unless the body has `idempotency_key`; if both are there they must be the same."
    )),
    request_body(content = CreateTransaction, example = json!(examples::instruction())),
    responses(
        (
            status = 202, description = "The transaction was accepted now.", body = Transaction,
            headers(("Location" = String, description = "The transaction's path.")),
            links(
                ("transaction" = (operation_id = "get_transaction", parameters(("id" = "$response.body#/id")))),
                ("list" = (operation_id = "list_transactions", parameters(("account_id" = "$response.body#/account_id"))))
            ),
            example = json!(examples::pending())
        ),
        (
            status = 200, description = "The transaction was accepted before, under the same key.",
            body = Transaction,
            headers(("Idempotent-Replayed" = bool, description = "Always `true`: nothing was posted by this request.")),
            example = json!(examples::processed())
        ),
        problems::CreateTransaction,
    )
)]
pub(crate) async fn create_transaction(
    _: Caller<Write>,
    IdempotencyHeader(key): IdempotencyHeader,
    State(state): State<Arc<AppState>>,
    JsonBody(body): JsonBody<CreateTransaction>,
) -> Result<Accepted, Problem> {
    let new = body.instruct(key)?;
    accepted(state.intake.submit(new).await)
}
