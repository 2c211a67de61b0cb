//! The small HTTP server each service has on its own port: `/health`, `/ready`, `/metrics`.

mod readiness;

use std::{io, net::SocketAddr};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
pub use readiness::{Component, Readiness};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::telemetry::Metrics;

/// The content type of Prometheus's text exposition format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4";

/// Binds an address, and says in a log line which one it got (`:0` takes a free port).
///
/// # Errors
/// If the address cannot be bound; the message names it.
pub async fn bind(server: &'static str, address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address} ({server}): {error}"),
        )
    })?;
    info!(server, addr = %listener.local_addr()?, "listening");
    Ok(listener)
}

/// Serves until the token is cancelled.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    token: CancellationToken,
) -> io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(scrape))
        .with_state(metrics)
        .merge(health_routes(readiness));
    axum::serve(listener, app)
        .with_graceful_shutdown(token.cancelled_owned())
        .await
}

/// `/health` and `/ready`, for the admin server and for the api's own port.
pub fn health_routes<S: Clone + Send + Sync + 'static>(readiness: Readiness) -> Router<S> {
    Router::new()
        .route(
            "/health",
            get(|| async { Json(json!({ "status": "alive" })) }),
        )
        .route("/ready", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        Json(json!({ "status": "ready" })).into_response()
    } else {
        let body = Json(json!({ "status": "unready", "reasons": reasons }));
        let retry_after = [(header::RETRY_AFTER, "1")];
        (StatusCode::SERVICE_UNAVAILABLE, retry_after, body).into_response()
    }
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], metrics.render()).into_response()
}
