//! The OpenAPI document, made from the code.

use crate::routes;

/// The document as JSON, for people.
#[must_use]
pub fn document_json() -> String {
    let (_, document) = routes::v1().split_for_parts();
    serde_json::to_string_pretty(&document).unwrap_or_default()
}
