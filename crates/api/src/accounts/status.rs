use std::sync::Arc;

use axum::{Json, extract::State};
use common::types::{AccountId, AccountStatus};
use serde::Deserialize;
use sqlx::PgConnection;
use tracing::info;
use utoipa::ToSchema;
use validator::Validate;

use super::{Account, sql};
use crate::{
    AppState,
    auth::{Caller, Operate},
    extract::{JsonBody, PathId},
    openapi::{examples, problems, schemas},
    problem::{Code, FieldError, Problem},
    rules,
};

/// A change of an account.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeAccountStatus {
    /// Whether it is to take transactions.
    #[validate(custom(function = rules::account_status))]
    #[schema(value_type = schemas::AccountStatus)]
    status: String,
}

impl TryFrom<ChangeAccountStatus> for AccountStatus {
    type Error = Problem;

    fn try_from(body: ChangeAccountStatus) -> Result<Self, Problem> {
        body.validate().map_err(FieldError::refusal)?;
        body.status
            .parse()
            .map_err(|_| Problem::new(Code::ValidationFailed))
    }
}

/// Suspend an account, or set it free
///
/// Needs the scope `operate`. A SUSPENDED account refuses credits and debits. Setting the status that it has changes nothing.
#[utoipa::path(
    patch,
    path = "/v1/accounts/{id}",
    tag = "accounts",
    security(("api_key" = ["operate"])),
    params(("id" = Uuid, Path, description = "The account.", example = json!(examples::ACCOUNT_ID))),
    request_body(content = ChangeAccountStatus, example = json!({ "status": "SUSPENDED" })),
    responses(
        (
            status = 200, description = "The account as it is now.", body = Account,
            example = json!(examples::account())
        ),
        problems::ChangeAccountStatus,
    )
)]
pub(crate) async fn change_account_status(
    caller: Caller<Operate>,
    PathId(id): PathId,
    State(state): State<Arc<AppState>>,
    JsonBody(body): JsonBody<ChangeAccountStatus>,
) -> Result<Json<Account>, Problem> {
    let status = AccountStatus::try_from(body)?;
    let id = AccountId(id);
    let changed = state
        .database
        .run(async |connection| change(connection, id, status).await)
        .await?;
    if let Changed::Now(_) = changed {
        info!(api_key = &*caller.key.name, account_id = %id, %status, "account status changed");
    }
    match changed {
        Changed::Now(account) | Changed::Before(account) => Ok(Json(account)),
    }
}

enum Changed {
    Now(Account),
    Before(Account),
}

async fn change(
    connection: &mut PgConnection,
    id: AccountId,
    status: AccountStatus,
) -> Result<Changed, Problem> {
    if let Some(account) = sql::set_status(connection, id, status).await? {
        return Ok(Changed::Now(account));
    }
    let account = sql::find(connection, id).await?;
    account
        .map(Changed::Before)
        .ok_or(Problem::new(Code::AccountNotFound))
}
