use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::{
    AppState,
    problem::{Code, Problem},
};

/// Room for the bodies of all requests under way: many clients that send slowly would otherwise add
/// up to any amount of memory.
#[derive(Debug)]
pub struct BodyRoom(Semaphore);

impl BodyRoom {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes_max: u32) -> Self {
        Self(Semaphore::new(bytes_max as usize))
    }

    fn enter(&self, bytes: u32) -> Result<SemaphorePermit<'_>, Problem> {
        let room = self.0.try_acquire_many(bytes);
        room.map_err(|_| Problem::new(Code::Overloaded))
    }
}

/// Reads a JSON body within the limits on its size and on the time it takes to arrive.
pub(super) async fn read(request: Request, state: &AppState) -> Result<Bytes, Problem> {
    let settings = &state.server;
    let headers = request.headers();
    check_type(headers)?;
    let bytes_max = settings.http_body_bytes_max;
    // A body that says it is too large need not be read to find out.
    let declared = declared_bytes(headers).map(u32::try_from);
    let bytes = match declared {
        Some(Ok(bytes)) if bytes <= bytes_max => bytes,
        Some(_) => return Err(too_large(bytes_max)),
        // In chunks, of which nobody knows how many come.
        None => bytes_max,
    };
    let _room = state.bodies.enter(bytes)?;
    let body = Limited::new(request.into_body(), bytes_max as usize);
    match timeout(settings.body_read_timeout(), collect(body)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Ok(Err(_)) => Err(Problem::new(Code::BadRequest)),
        Err(_) => Err(Problem::new(Code::RequestTimeout).detail(format!(
            "The body did not arrive within {} ms: send it faster. Nothing was done.",
            settings.http_body_read_timeout_ms
        ))),
    }
}

async fn collect(body: Limited<Body>) -> Result<Bytes, axum::BoxError> {
    body.collect()
        .await
        .map(http_body_util::Collected::to_bytes)
}

fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn too_large(bytes_max: u32) -> Problem {
    Problem::new(Code::BodyTooLarge).detail(format!(
        "The body is larger than {bytes_max} bytes: send less."
    ))
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    // RFC 9110, section 15.5.16: a refused coding is answered with the accepted ones.
    if headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Problem::new(Code::UnsupportedMediaType)
            .detail("The body is encoded: send it without Content-Encoding.")
            .header(
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            ));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(value), None) if is_json(value) => Ok(()),
        _ => Err(Problem::new(Code::UnsupportedMediaType)),
    }
}

/// Whether a media type is application/json; its parameters say nothing about JSON, which is always
/// UTF-8 (RFC 8259, section 11).
fn is_json(value: &HeaderValue) -> bool {
    let essence = value
        .as_bytes()
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_json_whatever_its_parameters() {
        for accepted in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json ;x=y",
        ] {
            assert!(is_json(&HeaderValue::from_static(accepted)), "{accepted}");
        }
        for refused in [
            "",
            "text/plain",
            "application/jsonp",
            "application/problem+json",
            "json",
        ] {
            assert!(!is_json(&HeaderValue::from_static(refused)), "{refused}");
        }
    }
}
