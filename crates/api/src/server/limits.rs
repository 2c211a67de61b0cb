use axum::http::{HeaderMap, Request};

use super::ServerSettings;
use crate::problem::{Code, Problem};

/// Refuses what is too large before anything is done with it. hyper has limits of its own above
/// these, which it answers without a body: it has read no request yet.
pub(super) fn check<B>(request: &Request<B>, settings: &ServerSettings) -> Result<(), Problem> {
    let uri_max = settings.http_uri_bytes_max;
    let uri_bytes = request
        .uri()
        .path_and_query()
        .map_or(0, |uri| uri.as_str().len());
    if uri_bytes > uri_max as usize {
        return Err(Problem::new(Code::UriTooLong).detail(format!(
            "Path and query are longer than {uri_max} bytes together."
        )));
    }
    let headers = request.headers();
    let (count_max, bytes_max) = (settings.http_headers_max, settings.http_header_bytes_max);
    if headers.len() > count_max as usize || bytes(headers) > bytes_max as usize {
        return Err(Problem::new(Code::HeadersTooLarge).detail(format!(
            "The headers are more than {count_max}, or larger than {bytes_max} bytes together."
        )));
    }
    Ok(())
}

fn bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}
