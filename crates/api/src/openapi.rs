//! The OpenAPI document (3.1), made from the code.

mod assemble;
pub(crate) mod examples;
pub(crate) mod problems;
pub(crate) mod schemas;
mod service;

/// The document as JSON, laid out for people.
#[must_use]
pub fn document_json() -> String {
    // A JSON value has text keys only, so it always serializes.
    let mut text = serde_json::to_string_pretty(&assemble::document()).unwrap_or_default();
    text.push('\n');
    text
}
