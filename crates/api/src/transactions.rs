//! Transactions: taken in, one by one or many at once, shown, listed.

mod answer;
mod batch;
mod create;
mod instruction;
mod list;
mod model;
mod sql;

use std::sync::Arc;

pub use model::Transaction;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::AppState;

/// The routes below `/v1/transactions`.
pub(crate) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(create::create_transaction, list::list_transactions))
        .routes(routes!(batch::create_transaction_batch))
        .routes(routes!(list::get_transaction))
}
