//! Dead letters: records that were given up. Listed, inspected, replayed, discarded.

mod act;
mod actor;
mod discard;
mod filter;
mod inspect;
mod list;
mod many;
mod model;
mod order;
mod replay;
mod run;
mod sql;

use std::sync::Arc;

pub(crate) use run::ACCOUNT_BUSY;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::AppState;

/// The routes below `/v1/dead-letters`.
pub(crate) fn routes() -> OpenApiRouter<Arc<AppState>> {
    discard::describe_metrics();
    OpenApiRouter::new()
        .routes(routes!(list::list_dead_letters))
        .routes(routes!(many::replay_dead_letters))
        .routes(routes!(inspect::get_dead_letter))
        .routes(routes!(replay::replay_dead_letter))
        .routes(routes!(discard::discard_dead_letter))
}
