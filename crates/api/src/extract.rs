//! What a request carries, taken apart; each thing that can be wrong is a problem of its own.

mod body;
mod idempotency;
mod json;
mod path;
mod query;

pub use body::BodyRoom;
pub(crate) use idempotency::{IdempotencyHeader, NoIdempotencyHeader};
pub(crate) use json::{JsonBody, from_json};
pub(crate) use path::PathId;
pub(crate) use query::Params;
