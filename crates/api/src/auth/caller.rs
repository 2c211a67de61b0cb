use std::{marker::PhantomData, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use super::{KeyHash, LiveKey, Scope};
use crate::{
    AppState,
    problem::{Code, Problem},
    server::RequestContext,
};

/// A scope as a type, so that a handler's signature says what it needs.
pub trait Scoped: Send + Sync {
    /// The scope.
    const SCOPE: Scope;
}

/// Needs the scope `read`.
#[derive(Clone, Copy, Debug)]
pub struct Read;
/// Needs the scope `write`.
#[derive(Clone, Copy, Debug)]
pub struct Write;
/// Needs the scope `operate`.
#[derive(Clone, Copy, Debug)]
pub struct Operate;

impl Scoped for Read {
    const SCOPE: Scope = Scope::Read;
}

impl Scoped for Write {
    const SCOPE: Scope = Scope::Write;
}

impl Scoped for Operate {
    const SCOPE: Scope = Scope::Operate;
}

/// A caller whose key has the scope. It stands first among a handler's arguments: nothing else of
/// the request is looked at before.
#[derive(Clone, Debug)]
pub struct Caller<S> {
    /// The caller's key.
    pub key: LiveKey,
    scope: PhantomData<S>,
}

impl<S: Scoped> FromRequestParts<Arc<AppState>> for Caller<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        let presented = presented_key(&parts.headers).and_then(KeyHash::of_presented);
        let hash = presented.ok_or(Problem::new(Code::Unauthorized))?;
        let key = state
            .keys
            .find(&hash)
            .await?
            .ok_or(Problem::new(Code::Unauthorized))?;
        if let Some(context) = parts.extensions.get::<Arc<RequestContext>>() {
            // A request has one caller, so the place is empty before.
            let _empty_before = context.caller.set(Arc::clone(&key.name));
        }
        if key.scopes.contain(S::SCOPE) {
            return Ok(Self {
                key,
                scope: PhantomData,
            });
        }
        Err(Problem::new(Code::MissingScope).detail(format!(
            "This needs a key with the scope {}.",
            S::SCOPE.as_str()
        )))
    }
}

/// The credentials of `Authorization: Bearer …` (RFC 6750); the scheme's case does not matter.
fn presented_key(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
