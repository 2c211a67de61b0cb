use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::body;
use crate::{
    AppState,
    problem::{Code, FieldError, Problem},
};

/// Most characters of a client's own name for a field that are repeated to it.
const NAME_CHARACTERS_MAX: usize = 64;

/// A JSON body of the documented shape.
#[derive(Clone, Debug)]
pub(crate) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<AppState>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Self, Problem> {
        let bytes = body::read(request, state).await?;
        from_json(&bytes).map(Self)
    }
}

/// Reads a JSON object of the documented shape.
///
/// # Errors
/// `malformed_json`, or `invalid_body` with the field that does not fit.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let value = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => wrong_shape::<T>(bytes, &error),
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::new(Code::MalformedJson).detail(format!("Not JSON at {}.", place(&error)))
        }
    })?;
    // serde also reads a struct from an array of its fields' values, which is nowhere documented.
    if bytes.trim_ascii_start().starts_with(b"{") {
        Ok(value)
    } else {
        Err(invalid(FieldError::new(
            "body",
            "wrong_type",
            "must be an object",
        )))
    }
}

fn place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    format!("line {}, column {}: {reason}", error.line(), error.column())
}

/// Finds out which field is the wrong one: a second reading, which keeps track of the path, and
/// which a right body never needs.
fn wrong_shape<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Problem {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let path = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Err(located) => located.path().to_string(),
        Ok(_) => String::new(),
    };
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    if bytes.trim_ascii_start().starts_with(b"{") {
        invalid(shape_error(&path, reason))
    } else {
        invalid(FieldError::new("body", "wrong_type", "must be an object"))
    }
}

fn invalid(error: FieldError) -> Problem {
    Problem::new(Code::InvalidBody)
        .detail(format!("{}: {}.", error.field, error.detail))
        .errors(vec![error])
}

/// serde's words made ours: its own tell of Rust's types.
fn shape_error(path: &str, reason: &str) -> FieldError {
    let named = reason.split('`').nth(1).unwrap_or_default();
    let named = excerpt(named);
    let field = if path.is_empty() || path == "." {
        "body".to_owned()
    } else {
        path.to_owned()
    };
    match reason
        .split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["missing", "field"] => FieldError::new(named, "missing_field", "is required"),
        ["unknown", "field"] => {
            FieldError::new(named, "unknown_field", "is not a field of this body")
        }
        ["duplicate", "field"] => {
            FieldError::new(named, "duplicate_field", "stands more than once")
        }
        _ => FieldError::new(field, "wrong_type", format!("must be {}", expected(reason))),
    }
}

/// As much of a name as helps to find it; the client chose it, and how long it is.
pub(super) fn excerpt(name: &str) -> String {
    name.chars().take(NAME_CHARACTERS_MAX).collect()
}

fn expected(reason: &str) -> &str {
    let wanted = reason
        .rsplit_once("expected ")
        .map_or(reason, |(_, wanted)| wanted);
    match wanted {
        "i64" => "a whole number without fraction or exponent, at most 9223372036854775807",
        wanted if wanted.starts_with("struct ") => "an object",
        "a sequence" => "an array",
        wanted => wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        amount_cents: i64,
        #[serde(rename = "type")]
        kind: String,
    }

    fn problem(text: &[u8]) -> (Code, serde_json::Value) {
        let problem = from_json::<Sample>(text)
            .map(|sample| (sample.amount_cents, sample.kind))
            .unwrap_err();
        (
            problem.code(),
            serde_json::to_value(problem.body("r-1")).unwrap(),
        )
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        let deep = "[".repeat(100_000);
        let texts: [&[u8]; 10] = [
            b"",
            b"{",
            b"{\"amount_cents\":1,}",
            b"{\"amount_cents\":1,\"type\":\"\"} trailing",
            b"nonsense",
            b"{\"type\":\"\xff\"}",
            b"{\"type\":\"\\ud800\"}",
            b"{\"type\":\"raw\x00nul\"}",
            b"{\"amount_cents\":01,\"type\":\"\"}",
            b"{\"amount_cents\":1e9999,\"type\":\"\"}",
        ];
        for text in texts {
            assert_eq!(
                problem(text).0,
                Code::MalformedJson,
                "{}",
                String::from_utf8_lossy(text)
            );
        }
        assert!(matches!(
            problem(deep.as_bytes()).0,
            Code::MalformedJson | Code::InvalidBody
        ));
    }

    #[test]
    fn a_field_that_does_not_fit_is_named() {
        let table = [
            (
                r#"{"amount_cents":"5","type":""}"#,
                "amount_cents",
                "wrong_type",
            ),
            (
                r#"{"amount_cents":5.0,"type":""}"#,
                "amount_cents",
                "wrong_type",
            ),
            (
                r#"{"amount_cents":1e3,"type":""}"#,
                "amount_cents",
                "wrong_type",
            ),
            (
                r#"{"amount_cents":9223372036854775808,"type":""}"#,
                "amount_cents",
                "wrong_type",
            ),
            (
                r#"{"amount_cents":-9223372036854775809,"type":""}"#,
                "amount_cents",
                "wrong_type",
            ),
            (r#"{"amount_cents":1,"type":null}"#, "type", "wrong_type"),
            (
                r#"{"amount_cents":1,"type":"","extra":1}"#,
                "extra",
                "unknown_field",
            ),
            (
                r#"{"amount_cents":1,"amount_cents":1,"type":""}"#,
                "amount_cents",
                "duplicate_field",
            ),
            (r#"{"amount_cents":1}"#, "type", "missing_field"),
            ("[]", "body", "wrong_type"),
            (r#"[1,"CREDIT"]"#, "body", "wrong_type"),
            ("null", "body", "wrong_type"),
        ];
        let (_, long) = problem(format!("{{\"{}\":1}}", "x".repeat(100_000)).as_bytes());
        assert!(long.to_string().len() < 1_000, "{long}");
        for (text, field, code) in table {
            let (problem_code, body) = problem(text.as_bytes());
            assert_eq!(problem_code, Code::InvalidBody, "{text}");
            assert_eq!(body["errors"][0]["field"], field, "{text}: {body}");
            assert_eq!(body["errors"][0]["code"], code, "{text}: {body}");
            let detail = body["detail"].as_str().unwrap();
            assert!(
                !detail.contains("i64") && !detail.contains("struct"),
                "{detail}"
            );
        }
    }
}
