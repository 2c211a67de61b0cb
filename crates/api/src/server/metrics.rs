use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};

/// The route of a request that matched none: paths are the client's choice, labels must not be.
const NO_ROUTE: &str = "none";

/// Counts requests by method, route and status. The handles are kept, because making one from its
/// labels costs more than counting.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpMetrics(Arc<RwLock<HashMap<String, ByOutcome>>>);

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done<'a> {
    pub(crate) method: &'a Method,
    /// The path as the router has it; none if it has none.
    pub(crate) route: Option<&'a str>,
    pub(crate) status: StatusCode,
    pub(crate) took: Duration,
}

type ByOutcome = HashMap<(&'static str, StatusCode), Handles>;

#[derive(Clone)]
struct Handles {
    requests: Counter,
    duration: Histogram,
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles")
    }
}

impl HttpMetrics {
    pub(crate) fn describe() {
        describe_counter!(
            "http_requests_total",
            "Requests answered, by method, route and status"
        );
        describe_histogram!(
            "http_request_duration_seconds",
            "From a request's headers to its response's, by method and route"
        );
    }

    pub(crate) fn record(&self, done: &Done<'_>) {
        let &Done { status, took, .. } = done;
        let route = done.route.unwrap_or(NO_ROUTE);
        let method = method_label(done.method);
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = known
            .get(route)
            .and_then(|of_route| of_route.get(&(method, status)))
        {
            return handles.record(took);
        }
        drop(known);
        let handles = Handles::new(method, route, status);
        handles.record(took);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known
            .entry(route.to_owned())
            .or_default()
            .insert((method, status), handles);
    }
}

impl Handles {
    fn new(method: &'static str, route: &str, status: StatusCode) -> Self {
        let route = route.to_owned();
        Self {
            requests: counter!(
                "http_requests_total",
                "method" => method, "route" => route.clone(), "status" => status.as_u16().to_string()
            ),
            duration: histogram!("http_request_duration_seconds", "method" => method, "route" => route),
        }
    }

    fn record(&self, took: Duration) {
        self.requests.increment(1);
        self.duration.record(took);
    }
}

/// A method is the client's choice too.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_of_the_clients_own_making_has_no_label_of_its_own() {
        assert_eq!(method_label(&Method::GET), "GET");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }

    #[test]
    fn handles_are_made_once() {
        let metrics = HttpMetrics::default();
        let found = Done {
            method: &Method::GET,
            route: Some("/v1/accounts"),
            status: StatusCode::OK,
            took: Duration::ZERO,
        };
        for _ in 0..3 {
            metrics.record(&found);
            metrics.record(&Done {
                route: None,
                status: StatusCode::NOT_FOUND,
                ..found
            });
        }
        let known = metrics.0.read().unwrap();
        assert_eq!(known.len(), 2);
        assert_eq!(known[NO_ROUTE].len(), 1);
    }
}
