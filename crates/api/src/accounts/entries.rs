use std::sync::Arc;

use axum::{Json, extract::State};
use common::types::AccountId;
use sqlx::PgConnection;

use super::{Entry, model::EntryPage, sql};
use crate::{
    AppState,
    auth::{Caller, Read},
    extract::{Params, PathId},
    openapi::{examples, problems},
    pagination::{self, Listing, Page},
    problem::{Code, Problem},
};

/// Show an account's statement
///
/// Needs the scope `read`. The newest entry first. Entries are numbered from 1 without gaps and never change.
#[utoipa::path(
    get,
    path = "/v1/accounts/{id}/entries",
    tag = "accounts",
    security(("api_key" = ["read"])),
    params(
        ("id" = Uuid, Path, description = "The account.", example = json!(examples::ACCOUNT_ID)),
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
            status = 200, description = "A page of entries.", body = EntryPage,
            example = json!(examples::page(&examples::entry()))
        ),
        problems::ListAccountEntries,
    )
)]
pub(crate) async fn list_account_entries(
    _: Caller<Read>,
    PathId(id): PathId,
    mut params: Params,
    State(state): State<Arc<AppState>>,
) -> Result<Json<Page<Entry>>, Problem> {
    let account_id = AccountId(id);
    let listing = Listing::new(format!("entries of {account_id}"));
    let cursor = listing.take_cursor(&mut params);
    let below = cursor
        .and_then(|number| i64::try_from(number).ok())
        .unwrap_or(i64::MAX);
    let limit = pagination::take_limit(&mut params);
    params.finish()?;
    let rows = state
        .database
        .run(async |connection| entries(connection, account_id, below, i64::from(limit) + 1).await)
        .await?;
    let number = |entry: &Entry| u128::from(entry.entry_no.unsigned_abs());
    Ok(Json(listing.page(rows, limit, None, number)))
}

/// An account without entries is told from one that does not exist.
async fn entries(
    connection: &mut PgConnection,
    account_id: AccountId,
    below: i64,
    limit: i64,
) -> Result<Vec<Entry>, Problem> {
    let rows = sql::list_entries(connection, account_id, below, limit).await?;
    if rows.is_empty() && sql::find(connection, account_id).await?.is_none() {
        return Err(Problem::new(Code::AccountNotFound));
    }
    Ok(rows)
}
