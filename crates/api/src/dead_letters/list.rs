use std::sync::Arc;

use axum::{Json, extract::State};
use common::types::{AccountId, DeadLetterState};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    filter::Filter,
    model::{DeadLetter, DeadLetterPage},
    sql::{self, Among, Stretch},
};
use crate::{
    AppState,
    auth::{Caller, Operate},
    extract::Params,
    openapi::{examples, problems, schemas},
    pagination::{self, Listing, Page},
    problem::Problem,
    rules,
};

struct Search {
    state: Option<DeadLetterState>,
    filter: Filter,
    below: Uuid,
    limit: u16,
    listing: Listing,
}

impl TryFrom<Params> for Search {
    type Error = Problem;

    fn try_from(mut params: Params) -> Result<Self, Problem> {
        let state = params.take("state", rules::DEAD_LETTER_STATE_RULE);
        let filter = Filter {
            account_id: params
                .take_with("account_id", rules::UUID_RULE, rules::parse_uuid)
                .map(AccountId),
            class: params.take("class", rules::DEAD_LETTER_CLASS_RULE),
            dead_from: params.take_with("dead_from", rules::TIME_RULE, rules::parse_time),
            dead_to: params.take_with("dead_to", rules::TIME_RULE, rules::parse_time),
        };
        if filter.ends_before_it_begins() {
            params.refuse("dead_from", "after_dead_to", rules::DEAD_FROM_RULE);
        }
        let listing = Listing::new(format!("dead letters {state:?} {filter:?}"));
        let below = listing
            .take_cursor(&mut params)
            .map_or(Uuid::max(), Uuid::from_u128);
        let limit = pagination::take_limit(&mut params);
        params.finish()?;
        Ok(Self {
            state,
            filter,
            below,
            limit,
            listing,
        })
    }
}

impl Search {
    fn among(&self) -> Among {
        match (self.filter.account_id, self.state) {
            (Some(account_id), _) => Among::Account(account_id),
            (None, Some(DeadLetterState::Dead)) => Among::Dead,
            (None, _) => Among::All,
        }
    }

    /// Whether there may be rows on the way that are not in the list.
    fn skips(&self) -> bool {
        let Filter {
            class,
            dead_from,
            dead_to,
            ..
        } = self.filter;
        let by_state = self.state.is_some() && self.among() != Among::Dead;
        by_state || class.is_some() || dead_from.is_some() || dead_to.is_some()
    }
}

/// List dead letters
///
/// Needs the scope `operate`. In the order in which they first died, the newest first. A page looks at a bounded number of dead
/// letters: it may hold fewer than `limit`, even none, and a cursor.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    tag = "dead letters",
    security(("api_key" = ["operate"])),
    params(
        (
            "state" = inline(Option<schemas::DeadLetterState>), Query, example = "DEAD",
            description = "Only dead letters of this state."
        ),
        (
            "class" = inline(Option<schemas::DeadLetterClass>), Query, example = "retries_exhausted",
            description = "Only those given up for this reason."
        ),
        (
            "account_id" = Option<Uuid>, Query, example = json!(examples::ACCOUNT_ID),
            description = "Only those that claim this account; the nil UUID for those that claim none."
        ),
        (
            "dead_from" = Option<chrono::DateTime<chrono::Utc>>, Query, example = "2026-11-21T00:00:00Z",
            description = "Only those given up at this time or later."
        ),
        (
            "dead_to" = Option<chrono::DateTime<chrono::Utc>>, Query, example = "2026-11-22T00:00:00Z",
            description = "Only those given up before this time; not before `dead_from`."
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
            status = 200, description = "A page of dead letters.", body = DeadLetterPage,
            example = json!(examples::page(&examples::letter()))
        ),
        problems::ListDeadLetters,
    )
)]
pub(crate) async fn list_dead_letters(
    _: Caller<Operate>,
    params: Params,
    State(state): State<Arc<AppState>>,
) -> Result<Json<Page<DeadLetter>>, Problem> {
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
) -> Result<Page<DeadLetter>, sqlx::Error> {
    let &Search {
        state,
        ref filter,
        below,
        limit,
        ..
    } = search;
    let among = search.among();
    let stop = if search.skips() {
        sql::nth_below(connection, among, below, examined.into()).await?
    } else {
        None
    };
    let stretch = Stretch {
        below,
        above: stop.unwrap_or(Uuid::nil()),
        limit: i64::from(limit) + 1,
    };
    let rows = match among {
        Among::All => sql::list(connection, stretch, state, filter).await?,
        Among::Dead => sql::list_dead(connection, stretch, filter).await?,
        Among::Account(id) => sql::list_of_account(connection, id, stretch, state, filter).await?,
    };
    // The row at which the search stopped is the first of the next page's.
    let stopped_at = stop.map(|id| id.as_u128() + 1);
    Ok(search
        .listing
        .page(rows, limit, stopped_at, |letter| letter.id.0.as_u128()))
}
