//! `/openapi.json` and `/docs`, a page to try the API that fetches nothing from outside.

use axum::{
    Router,
    body::Bytes,
    http::{HeaderName, HeaderValue, header},
    middleware,
    response::Response,
    routing::get,
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::openapi;

/// Swagger UI styles its elements itself and draws icons from data URLs; everything else comes from
/// here.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; frame-ancestors 'none'; form-action 'none'; base-uri 'none'";

pub(crate) fn routes() -> Router {
    let document = Bytes::from(openapi::document_json());
    let json = [(header::CONTENT_TYPE, "application/json")];
    // The validator is a badge from a server of Swagger's makers.
    let config = Config::from("/openapi.json")
        .validator_url("none")
        .persist_authorization(false);
    Router::new()
        .route("/openapi.json", get(async move || (json, document)))
        .merge(SwaggerUi::new("/docs").config(config))
        .route_layer(middleware::map_response(harden))
}

async fn harden(mut response: Response) -> Response {
    let fixed: [(HeaderName, &str); 3] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        // The files belong to one version of the service: ask again after each start.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in fixed {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
