use std::sync::Arc;

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::{self, Next},
    response::Response,
};
use common::admin::{Readiness, health_routes};
use utoipa_axum::router::OpenApiRouter;

use crate::{AppState, accounts, dead_letters, docs, server::App, transactions};

/// The whole service: every route, and what holds for all of them.
#[must_use]
pub fn app(state: Arc<AppState>, readiness: Readiness) -> App {
    let settings = state.server;
    let (v1, _) = v1().split_for_parts();
    let router: Router = v1
        .with_state(state)
        .merge(health_routes(readiness))
        .merge(docs::routes())
        .route_layer(middleware::from_fn(name_route));
    App::new(router, settings)
}

/// The routes that need a key, with their part of the OpenAPI document.
pub(crate) fn v1() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::default()
        .merge(accounts::routes())
        .merge(transactions::routes())
        .merge(dead_letters::routes())
}

/// Tells [`App`] which route answered: only the router knows, and only from inside.
async fn name_route(path: MatchedPath, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.extensions_mut().insert(path);
    response
}
