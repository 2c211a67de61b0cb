use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};

use super::json::excerpt;
use crate::problem::{Code, FieldError, Problem};

/// The query's parameters, taken one by one; each may stand once, and none may be left over.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Pairs of texts can be had from any query; what is no UTF-8 comes as U+FFFD, which no
        // parameter of ours accepts.
        let Query(pairs) =
            Query::try_from_uri(&parts.uri).map_err(|_| Problem::new(Code::InvalidQuery))?;
        Ok(Self {
            pairs,
            errors: Vec::new(),
        })
    }
}

impl Params {
    /// Takes a parameter, if it is there.
    pub(crate) fn take<T: FromStr>(&mut self, name: &'static str, rule: &'static str) -> Option<T> {
        self.take_with(name, rule, |text| text.parse().ok())
    }

    /// Takes a parameter, if it is there, by a rule of its own.
    pub(crate) fn take_with<T>(
        &mut self,
        name: &'static str,
        rule: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let at = self.pairs.iter().position(|(key, _)| key == name)?;
        let (_, text) = self.pairs.swap_remove(at);
        let parsed = parse(&text);
        if parsed.is_none() {
            self.errors
                .push(FieldError::new(name, "invalid_value", rule));
        }
        parsed
    }

    /// Whether a parameter is there and not taken yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key == name)
    }

    /// Notes that a parameter does not go with the others.
    pub(crate) fn refuse(&mut self, name: &'static str, code: &'static str, rule: &'static str) {
        self.errors.push(FieldError::new(name, code, rule));
    }

    /// Ends the reading: an error if anything was wrong, stood twice, or is not known.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in self.pairs {
            self.errors.push(FieldError::new(
                excerpt(&name),
                "unknown_parameter",
                "is not a parameter of this route, or stands more than once",
            ));
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        Err(Problem::new(Code::InvalidQuery).errors(self.errors))
    }
}
