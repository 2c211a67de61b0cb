use std::sync::Arc;

use axum::{Json, extract::State};
use common::types::AccountId;
use sqlx::PgConnection;

use super::{Entry, sql};
use crate::{
    AppState,
    auth::{Caller, Read},
    extract::{Params, PathId},
    pagination::{self, Listing, Page},
    problem::{Code, Problem},
};

/// Show an account's statement
///
/// The newest entry first. Entries are numbered from 1 without gaps and never change.
#[utoipa::path(get, path = "/v1/accounts/{id}/entries", tag = "accounts")]
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
