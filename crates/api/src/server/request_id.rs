use std::sync::{Arc, OnceLock};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use uuid::Uuid;

/// The header that names a request, in both directions.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LENGTH_MAX: usize = 128;

/// Names a request in the response, in problems and in the logs: the client's name for it if it
/// sent a usable one, else ours.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Takes the client's id if it is 1 to 128 printable ASCII characters without spaces: such a
    /// one cannot break a log line, and fits into one.
    pub(crate) fn accept_or_make(headers: &HeaderMap) -> Self {
        match headers.get(X_REQUEST_ID) {
            Some(id) if is_usable(id.as_bytes()) => Self(id.clone()),
            _ => Self::make(),
        }
    }

    fn make() -> Self {
        let mut buffer = Uuid::encode_buffer();
        let id = Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
        // A UUID's text is a valid header value; were it not, an empty id would do no harm.
        Self(HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("")))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// What is known of a request while it is answered; in its extensions.
#[derive(Debug)]
pub struct RequestContext {
    /// Its name.
    pub id: RequestId,
    /// The name of the key that it came with, once that is found to be good; for the logs.
    pub caller: OnceLock<Arc<str>>,
}

impl RequestContext {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Self {
            id: RequestId::accept_or_make(request.headers()),
            caller: OnceLock::new(),
        }
    }
}

fn is_usable(id: &[u8]) -> bool {
    (1..=LENGTH_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(value: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        RequestId::accept_or_make(&headers).as_str().to_owned()
    }

    #[test]
    fn a_usable_id_of_the_client_is_kept() {
        let longest = "x".repeat(128);
        for id in ["r-1", "8e03978e-40d5-43dd-bc93-6894a57f9324", &longest] {
            assert_eq!(id_for(id.as_bytes()), id);
        }
    }

    #[test]
    fn any_other_is_replaced_by_a_uuid_of_version_7() {
        let too_long = "x".repeat(129);
        for id in [
            "".as_bytes(),
            b"a b",
            b"tab\there",
            b"\xff",
            too_long.as_bytes(),
        ] {
            let made: Uuid = id_for(id).parse().unwrap();
            assert_eq!(made.get_version_num(), 7);
        }
    }
}
