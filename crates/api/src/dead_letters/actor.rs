use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{
    AppState,
    auth::{Caller, Operate},
    problem::{Code, Problem},
    server::RequestContext,
};

/// Who acts, and in which request: what is recorded of an action beside its reason. Like [`Caller`],
/// which it needs, it stands first among a handler's arguments.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    /// The name of the API key.
    pub(super) name: Arc<str>,
    pub(super) request_id: String,
}

impl FromRequestParts<Arc<AppState>> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        let caller = Caller::<Operate>::from_request_parts(parts, state).await?;
        let context = parts.extensions.get::<Arc<RequestContext>>();
        // Every request has one: `App` put it there.
        let context = context.ok_or(Problem::new(Code::Internal))?;
        Ok(Self {
            name: caller.key.name,
            request_id: context.id.as_str().to_owned(),
        })
    }
}
