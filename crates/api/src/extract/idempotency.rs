use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, request::Parts},
};

use crate::{
    intake::IdempotencyKey,
    problem::{Code, Problem},
};

/// The header's name (draft-ietf-httpapi-idempotency-key-header-07).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The key of the `Idempotency-Key` header, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct IdempotencyHeader(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyHeader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(value), None) => parse(value)
                .map(|key| Self(Some(key)))
                .ok_or(Problem::new(Code::IdempotencyKeyInvalid)),
            (Some(_), Some(_)) => Err(Problem::new(Code::IdempotencyKeyInvalid)
                .detail("The header Idempotency-Key stands more than once: send it once.")),
        }
    }
}

/// Refuses the header on a route whose items have keys of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoIdempotencyHeader;

impl<S: Send + Sync> FromRequestParts<S> for NoIdempotencyHeader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if has_key(&parts.headers) {
            Err(Problem::new(Code::IdempotencyKeyOnBatch))
        } else {
            Ok(Self)
        }
    }
}

fn has_key(headers: &HeaderMap) -> bool {
    headers.contains_key(IDEMPOTENCY_KEY)
}

/// The draft asks for a Structured Fields string (RFC 9651, section 3.3.3), most clients send the
/// bare text: a value that begins with a double quote is the first, any other the second.
fn parse(value: &HeaderValue) -> Option<IdempotencyKey> {
    let text = value.to_str().ok()?;
    let key = match text.strip_prefix('"') {
        Some(rest) => unquote(rest.strip_suffix('"')?)?,
        None => text.to_owned(),
    };
    IdempotencyKey::try_from(key).ok()
}

/// What stands between the quotes: only a quote and a backslash are escaped, and always.
fn unquote(inner: &str) -> Option<String> {
    let mut key = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        key.push(match char {
            '"' => return None,
            '\\' => chars
                .next()
                .filter(|escaped| matches!(escaped, '"' | '\\'))?,
            plain => plain,
        });
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(value: &[u8]) -> Option<String> {
        parse(&HeaderValue::from_bytes(value).unwrap()).map(String::from)
    }

    #[test]
    fn a_key_may_be_quoted_or_bare() {
        let table: [(&[u8], &str); 6] = [
            (b"pay-1", "pay-1"),
            (b"\"pay-1\"", "pay-1"),
            (b"a b", "a b"),
            (br#""say \"hi\" \\o/""#, r#"say "hi" \o/"#),
            (b"it's \"fine\"", "it's \"fine\""),
            (b"\" \"", " "),
        ];
        for (value, key) in table {
            assert_eq!(key_of(value).as_deref(), Some(key));
        }
        assert_eq!(key_of("x".repeat(255).as_bytes()).unwrap().len(), 255);
    }

    #[test]
    fn what_is_neither_is_refused() {
        let too_long = "x".repeat(256);
        let quoted_too_long = format!("\"{too_long}\"");
        let values: [&[u8]; 10] = [
            b"",
            b"\"",
            b"\"\"",
            b"\"open",
            b"\"a\"b\"",
            b"\"a\\\"",
            b"\"a\\n\"",
            b"\xfc",
            too_long.as_bytes(),
            quoted_too_long.as_bytes(),
        ];
        for value in values {
            assert_eq!(key_of(value), None, "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(key_of(b"\"a\";p=1"), None);
    }
}
