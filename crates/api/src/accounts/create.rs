use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use common::types::{AccountId, Currency};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use validator::Validate;

use super::{Account, sql};
use crate::{
    AppState,
    auth::{Caller, Write},
    extract::JsonBody,
    openapi::{examples, problems, schemas},
    problem::{Code, FieldError, Problem},
    rules,
};

/// An account to open.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateAccount {
    /// A name of the client's making, so that a repeat opens no second account; ours, if not given.
    #[validate(custom(function = rules::uuid))]
    #[schema(value_type = Option<uuid::Uuid>)]
    id: Option<String>,
    /// ISO 4217; it never changes.
    #[validate(custom(function = rules::currency))]
    #[schema(value_type = schemas::Currency)]
    currency: String,
}

struct NewAccount {
    id: AccountId,
    currency: Currency,
}

impl TryFrom<CreateAccount> for NewAccount {
    type Error = Problem;

    fn try_from(body: CreateAccount) -> Result<Self, Problem> {
        body.validate().map_err(FieldError::refusal)?;
        let refused = || Problem::new(Code::ValidationFailed);
        let id = match body.id {
            Some(id) => AccountId(rules::parse_uuid(&id).ok_or_else(refused)?),
            None => AccountId::new(),
        };
        let currency = body.currency.parse().map_err(|_| refused())?;
        Ok(Self { id, currency })
    }
}

enum Opened {
    New(Account),
    Before(Account),
    Other,
}

/// Open an account
///
/// Needs the scope `write`. A repeat with the same `id` and currency is answered 200 with the account in its present state.
#[utoipa::path(
    post,
    path = "/v1/accounts",
    tag = "accounts",
    security(("api_key" = ["write"])),
    request_body(
        content = CreateAccount,
        example = json!({ "id": examples::ACCOUNT_ID, "currency": "EUR" })
    ),
    responses(
        (
            status = 201, description = "The account was opened.", body = Account,
            headers(("Location" = String, description = "The account's path.")),
            links(
                ("account" = (operation_id = "get_account", parameters(("id" = "$response.body#/id")))),
                ("status" = (operation_id = "change_account_status", parameters(("id" = "$response.body#/id")))),
                ("entries" = (operation_id = "list_account_entries", parameters(("id" = "$response.body#/id"))))
            ),
            example = json!(examples::new_account())
        ),
        (
            status = 200, description = "The account was opened before.", body = Account,
            headers(("Location" = String, description = "The account's path.")),
            example = json!(examples::account())
        ),
        problems::CreateAccount,
    )
)]
pub(crate) async fn create_account(
    _: Caller<Write>,
    State(state): State<Arc<AppState>>,
    JsonBody(body): JsonBody<CreateAccount>,
) -> Result<Response, Problem> {
    let new = NewAccount::try_from(body)?;
    let opened = state
        .database
        .run(async |connection| open(connection, &new).await)
        .await?;
    let (status, account) = match opened {
        Opened::New(account) => (StatusCode::CREATED, account),
        Opened::Before(account) => (StatusCode::OK, account),
        Opened::Other => return Err(Problem::new(Code::AccountExists)),
    };
    let location = [(header::LOCATION, format!("/v1/accounts/{}", account.id))];
    Ok((status, location, Json(account)).into_response())
}

/// The insert decides whether the id is new; accounts are never deleted, so one that was in its way
/// is there to be looked at.
async fn open(connection: &mut PgConnection, new: &NewAccount) -> Result<Opened, Problem> {
    if let Some(account) = sql::open(connection, new.id, new.currency).await? {
        return Ok(Opened::New(account));
    }
    let account = sql::find(connection, new.id)
        .await?
        .ok_or(Problem::new(Code::Internal))?;
    if account.currency == new.currency.as_str() {
        Ok(Opened::Before(account))
    } else {
        Ok(Opened::Other)
    }
}
