use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use uuid::Uuid;

use crate::{
    problem::{Code, FieldError, Problem},
    rules,
};

/// The `{id}` of a route's path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        text.ok()
            .and_then(|Path(text)| rules::parse_uuid(&text))
            .map(Self)
            .ok_or_else(|| {
                Problem::new(Code::InvalidPath).errors(vec![FieldError::new(
                    "id",
                    "invalid_uuid",
                    rules::UUID_RULE,
                )])
            })
    }
}
