//! Every error a client sees: `application/problem+json` (RFC 9457).

mod code;
mod field;

use std::borrow::Cow;
use std::sync::Arc;

use axum::{
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
pub use code::Code;
pub use field::FieldError;
use serde::Serialize;
use serde_json::value::RawValue;

/// The media type of problem details.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// After how many seconds a client may try again when the service is overloaded or its database is
/// away: both pass within seconds or take long.
const RETRY_AFTER_SECONDS: &str = "1";

/// Why a request was not carried out. Made anywhere, rendered at one place (`http::App`), which
/// knows the request's id and logs what is our fault.
#[derive(Debug)]
pub struct Problem(Box<Details>);

#[derive(Debug)]
struct Details {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Never shown to the client.
    source: Option<anyhow::Error>,
}

/// The JSON form.
#[derive(Clone, Debug, Serialize)]
pub struct ProblemBody<'a> {
    #[serde(rename = "type")]
    type_uri: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
}

/// A problem on its way out, in the extensions of a response without a body.
#[derive(Clone, Debug)]
pub(crate) struct Raised(pub(crate) Arc<Problem>);

impl Problem {
    /// A problem with the usual words of its code.
    #[must_use]
    pub fn new(code: Code) -> Self {
        let headers = match code.status() {
            StatusCode::UNAUTHORIZED => vec![(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"postonce\""),
            )],
            StatusCode::SERVICE_UNAVAILABLE => vec![(
                header::RETRY_AFTER,
                HeaderValue::from_static(RETRY_AFTER_SECONDS),
            )],
            _ => Vec::new(),
        };
        Self(Box::new(Details {
            code,
            detail: Cow::Borrowed(code.usual_detail()),
            errors: Vec::new(),
            headers,
            source: None,
        }))
    }

    /// Says what to change, in this very case. A 5xx keeps its usual words: it is opaque.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        if !self.0.code.status().is_server_error() {
            self.0.detail = detail.into();
        }
        self
    }

    /// Says which fields are wrong.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.retain(|(other, _)| *other != name);
        self.0.headers.push((name, value));
        self
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn because(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The cause, for the log.
    #[must_use]
    pub fn source(&self) -> Option<&anyhow::Error> {
        self.0.source.as_ref()
    }

    /// The database's error, where that is the cause.
    #[must_use]
    pub(crate) fn database_error(&self) -> Option<&sqlx::Error> {
        self.source()?.downcast_ref()
    }

    /// The headers its response has beside the usual ones.
    #[must_use]
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0.headers
    }

    /// The JSON form, for the request of this id.
    #[must_use]
    pub fn body<'a>(&'a self, request_id: &'a str) -> ProblemBody<'a> {
        ProblemBody {
            type_uri: self.0.code.type_uri(),
            title: self.0.code.title(),
            status: self.0.code.status().as_u16(),
            detail: &self.0.detail,
            code: self.0.code.as_str(),
            request_id,
            errors: &self.0.errors,
        }
    }
}

impl Problem {
    /// The JSON form as text, to stand within another body.
    #[must_use]
    pub fn to_raw(&self, request_id: &str) -> Box<RawValue> {
        // A problem is text and numbers, which always serialize.
        serde_json::value::to_raw_value(&self.body(request_id)).unwrap_or_default()
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl From<sqlx::Error> for Problem {
    /// A database that fails for now is worth another try; anything else is our fault.
    fn from(error: sqlx::Error) -> Self {
        let code = match common::db::ErrorClass::of(&error) {
            common::db::ErrorClass::Transient => Code::Unavailable,
            common::db::ErrorClass::Systemic | common::db::ErrorClass::Data => Code::Internal,
        };
        Self::new(code).because(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = self.0.code.status();
        response
            .headers_mut()
            .extend(self.0.headers.iter().cloned());
        response.extensions_mut().insert(Raised(Arc::new(self)));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_type_its_code_and_the_request() {
        let problem = Problem::new(Code::AccountNotFound);
        let body = serde_json::to_value(problem.body("r-1")).unwrap();
        assert_eq!(body["type"], "urn:postonce:problem:account_not_found");
        assert_eq!(body["code"], "account_not_found");
        assert_eq!(body["status"], 404);
        assert_eq!(body["request_id"], "r-1");
        assert!(body.get("errors").is_none());
    }

    #[test]
    fn a_problem_of_ours_tells_nothing_of_its_cause() {
        let problem = Problem::from(sqlx::Error::RowNotFound).detail("password=hunter2");
        let body = serde_json::to_string(&problem.body("r-1")).unwrap();
        assert_eq!(problem.code(), Code::Internal);
        assert!(!body.contains("row") && !body.contains("hunter2"), "{body}");
        assert!(problem.source().is_some());
    }

    #[test]
    fn what_may_pass_says_when_to_try_again() {
        let response = Problem::new(Code::Overloaded).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
