//! The open routes, which `common` and [`crate::docs`] serve.

use std::{collections::BTreeMap, sync::Arc};

use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::AppState;

/// What `/health` answers.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it exists for its schema")]
struct Health {
    /// Always `alive`.
    status: String,
}

/// What `/ready` answers.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it exists for its schema")]
struct Ready {
    /// `ready` or `unready`.
    status: String,
    /// What is missing and why, by component; only of an unready service.
    #[schema(required = false)]
    reasons: BTreeMap<String, String>,
}

/// The open routes, for the document only: they are served by others.
pub(crate) fn documented() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::default()
        .routes(routes!(get_health))
        .routes(routes!(get_ready))
        .routes(routes!(get_openapi_document))
}

/// Whether the process is alive
#[utoipa::path(
    get,
    path = "/health",
    tag = "service",
    responses((
        status = 200, description = "It is.", body = inline(Health),
        example = json!({ "status": "alive" })
    ))
)]
async fn get_health() {}

/// Whether the service can do its work
#[utoipa::path(
    get,
    path = "/ready",
    tag = "service",
    responses(
        (
            status = 200, description = "It can.", body = inline(Ready),
            example = json!({ "status": "ready" })
        ),
        (
            status = 503, description = "It cannot, and says what is missing.", body = inline(Ready),
            example = json!({ "status": "unready", "reasons": { "database": "the database cannot be reached; the log tells more" } })
        ),
    )
)]
async fn get_ready() {}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "service",
    operation_id = "get_openapi_document",
    responses((
        status = 200, description = "The OpenAPI document.", body = BTreeMap<String, serde_json::Value>,
        example = json!({ "openapi": "3.1.0" })
    ))
)]
async fn get_openapi_document() {}
