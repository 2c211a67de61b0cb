use std::sync::Arc;

use axum::{Json, extract::State};
use common::types::{AccountId, TransactionId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Transaction,
    model::TransactionPage,
    sql::{self, Filter},
};
use crate::{
    AppState,
    auth::{Caller, Read},
    extract::{Params, PathId},
    openapi::{examples, problems, schemas},
    pagination::{self, Listing, Page},
    problem::{Code, Problem},
    rules,
};

/// Show a transaction
///
/// Needs the scope `read`.
#[utoipa::path(
    get,
    path = "/v1/transactions/{id}",
    tag = "transactions",
    security(("api_key" = ["read"])),
    params((
        "id" = Uuid, Path, description = "The transaction.",
        example = json!(examples::TRANSACTION_ID)
    )),
    responses(
        (
            status = 200, description = "The transaction.", body = Transaction,
            example = json!(examples::processed())
        ),
        problems::GetTransaction,
    )
)]
pub(crate) async fn get_transaction(
    _: Caller<Read>,
    PathId(id): PathId,
    State(state): State<Arc<AppState>>,
) -> Result<Json<Transaction>, Problem> {
    let found = state
        .database
        .run(async |connection| sql::find(connection, TransactionId(id)).await)
        .await?;
    found
        .map(Json)
        .ok_or(Problem::new(Code::TransactionNotFound))
}

struct Search {
    account_id: Option<AccountId>,
    filter: Filter,
    below: Uuid,
    limit: u16,
    listing: Listing,
}

impl TryFrom<Params> for Search {
    type Error = Problem;

    fn try_from(mut params: Params) -> Result<Self, Problem> {
        let of_one_account = params.has("account_id");
        let account_id = params
            .take_with("account_id", rules::UUID_RULE, rules::parse_uuid)
            .map(AccountId);
        let filter = Filter {
            status: params.take("status", rules::STATUS_RULE),
            transaction_type: params.take("type", rules::TYPE_RULE),
        };
        if filter.status.is_some() && !of_one_account {
            params.refuse(
                "status",
                "needs_account_id",
                "can be asked for together with account_id only",
            );
        }
        let listing = Listing::new(format!("transactions {account_id:?} {filter:?}"));
        let below = listing
            .take_cursor(&mut params)
            .map_or(Uuid::max(), Uuid::from_u128);
        let limit = pagination::take_limit(&mut params);
        params.finish()?;
        Ok(Self {
            account_id,
            filter,
            below,
            limit,
            listing,
        })
    }
}

/// List transactions
///
/// Needs the scope `read`. The newest first. A page looks at a bounded number of transactions: it may hold fewer than
/// `limit`, even none, and a cursor.
#[utoipa::path(
    get,
    path = "/v1/transactions",
    tag = "transactions",
    security(("api_key" = ["read"])),
    params(
        (
            "account_id" = Option<Uuid>, Query, example = json!(examples::ACCOUNT_ID),
            description = "Only transactions of this account."
        ),
        (
            "status" = inline(Option<schemas::TransactionStatus>), Query, example = "FAILED",
            description = "Only transactions of this status; needs `account_id`."
        ),
        (
            "type" = inline(Option<schemas::TransactionType>), Query, example = "DEBIT",
            description = "Only transactions of this type."
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
            status = 200, description = "A page of transactions.", body = TransactionPage,
            example = json!(examples::page(&examples::processed()))
        ),
        problems::ListTransactions,
    )
)]
pub(crate) async fn list_transactions(
    _: Caller<Read>,
    params: Params,
    State(state): State<Arc<AppState>>,
) -> Result<Json<Page<Transaction>>, Problem> {
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
) -> Result<Page<Transaction>, sqlx::Error> {
    let &Search {
        account_id,
        filter,
        below,
        limit,
        ..
    } = search;
    let stop = stop(connection, search, examined).await?;
    let above = stop.unwrap_or(Uuid::nil());
    let rows_max = i64::from(limit) + 1;
    let rows = match account_id {
        Some(id) => sql::list_of_account(connection, id, below, above, filter, rows_max).await?,
        None => sql::list(connection, below, above, filter.transaction_type, rows_max).await?,
    };
    // The row at which the search stopped is the first of the next page's.
    let stopped_at = stop.map(|id| id.as_u128() + 1);
    Ok(search.listing.page(rows, limit, stopped_at, |transaction| {
        transaction.id.0.as_u128()
    }))
}

/// Where a search for rare rows ends before the list does.
async fn stop(
    connection: &mut PgConnection,
    search: &Search,
    examined: u32,
) -> Result<Option<Uuid>, sqlx::Error> {
    let &Search {
        account_id,
        filter,
        below,
        ..
    } = search;
    if filter.status.is_none() && filter.transaction_type.is_none() {
        return Ok(None);
    }
    match account_id {
        Some(id) => sql::nth_below_of_account(connection, id, below, examined.into()).await,
        None => sql::nth_below(connection, below, examined.into()).await,
    }
}
