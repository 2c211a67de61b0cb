//! Accounts: opened, shown, listed, suspended; and their statements.

mod create;
mod entries;
mod list;
mod model;
mod sql;
mod status;

use std::sync::Arc;

pub use model::{Account, Entry};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::AppState;

/// The routes below `/v1/accounts`.
pub(crate) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(create::create_account, list::list_accounts))
        .routes(routes!(list::get_account, status::change_account_status))
        .routes(routes!(entries::list_account_entries))
}
