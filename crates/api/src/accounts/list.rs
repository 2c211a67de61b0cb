use std::sync::Arc;

use axum::{Json, extract::State};
use common::types::{AccountId, AccountStatus};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Account, model::AccountPage, sql};
use crate::{
    AppState,
    auth::{Caller, Read},
    extract::{Params, PathId},
    openapi::{examples, problems, schemas},
    pagination::{self, Listing, Page},
    problem::{Code, Problem},
    rules,
};

/// Show an account
///
/// Needs the scope `read`.
#[utoipa::path(
    get,
    path = "/v1/accounts/{id}",
    tag = "accounts",
    security(("api_key" = ["read"])),
    params(("id" = Uuid, Path, description = "The account.", example = json!(examples::ACCOUNT_ID))),
    responses(
        (status = 200, description = "The account.", body = Account, example = json!(examples::account())),
        problems::GetAccount,
    )
)]
pub(crate) async fn get_account(
    _: Caller<Read>,
    PathId(id): PathId,
    State(state): State<Arc<AppState>>,
) -> Result<Json<Account>, Problem> {
    let found = state
        .database
        .run(async |connection| sql::find(connection, AccountId(id)).await)
        .await?;
    found.map(Json).ok_or(Problem::new(Code::AccountNotFound))
}

struct Search {
    status: Option<AccountStatus>,
    after: Uuid,
    limit: u16,
    listing: Listing,
}

impl TryFrom<Params> for Search {
    type Error = Problem;

    fn try_from(mut params: Params) -> Result<Self, Problem> {
        let status = params.take("status", rules::ACCOUNT_STATUS_RULE);
        let listing = Listing::new(format!("accounts {status:?}"));
        let after = listing
            .take_cursor(&mut params)
            .map_or(Uuid::nil(), Uuid::from_u128);
        let limit = pagination::take_limit(&mut params);
        params.finish()?;
        Ok(Self {
            status,
            after,
            limit,
            listing,
        })
    }
}

/// List accounts
///
/// Needs the scope `read`. In the order of their ids, which is about that of their making for ids made by the api. A page
/// looks at a bounded number of accounts: it may hold fewer than `limit`, and a cursor.
#[utoipa::path(
    get,
    path = "/v1/accounts",
    tag = "accounts",
    security(("api_key" = ["read"])),
    params(
        (
            "status" = inline(Option<schemas::AccountStatus>), Query, example = "ACTIVE",
            description = "Only accounts of this status."
        ),
        (
            "cursor" = Option<String>, Query, example = json!(examples::CURSOR),
            description = "`next_cursor` of the page before; for the same list with the same parameters."
        ),
        (
            "limit" = Option<u16>, Query, minimum = 1, maximum = 200, example = 50,
            description = "How many rows at most; 50 if not given."
        ),
    ),
    responses(
        (
            status = 200, description = "A page of accounts.", body = AccountPage,
            example = json!(examples::page(&examples::account()))
        ),
        problems::ListAccounts,
    )
)]
pub(crate) async fn list_accounts(
    _: Caller<Read>,
    params: Params,
    State(state): State<Arc<AppState>>,
) -> Result<Json<Page<Account>>, Problem> {
    let search = Search::try_from(params)?;
    let examined = state.list_examined_rows_max;
    let page = state
        .database
        .run(async |connection| find(connection, &search, examined).await)
        .await?;
    Ok(Json(page))
}

async fn find(
    connection: &mut PgConnection,
    search: &Search,
    examined: u32,
) -> Result<Page<Account>, sqlx::Error> {
    let stop = match search.status {
        Some(_) => sql::nth_behind(connection, search.after, examined.into()).await?,
        None => None,
    };
    // The row at which the search stopped is the first of the next page's.
    let stopped_at = stop.map(|id| id.as_u128() - 1);
    let last = stopped_at.map_or(Uuid::max(), Uuid::from_u128);
    let limit = i64::from(search.limit) + 1;
    let rows = sql::list(connection, search.after, last, search.status, limit).await?;
    Ok(search
        .listing
        .page(rows, search.limit, stopped_at, |account| {
            account.id.0.as_u128()
        }))
}
