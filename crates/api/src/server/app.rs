use std::{any::Any, fmt, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use anyhow::anyhow;
use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::MatchedPath,
    http::{
        Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header,
    },
};
use futures_util::FutureExt;
use http_body_util::{Either, Full};
use tower::{Layer, ServiceExt};
use tower_http::compression::{
    Compression, CompressionBody, CompressionLayer, Predicate,
    predicate::{And, SizeAbove},
};
use tracing::{Instrument, debug, error, info_span};

use super::{
    RequestContext, RequestId, ServerSettings, limits,
    metrics::{Done, HttpMetrics},
    request_id::X_REQUEST_ID,
};
use crate::problem::{Code, PROBLEM_JSON, Problem, Raised};

/// A response's body: what a route answered, compressed where that is worth it, or a problem.
pub type AppBody = Either<CompressionBody<Body>, Full<Bytes>>;

/// The page's scripts and styles are large and the same for everybody: packing them anew for each
/// request would let anybody keep the processor busy without a key.
type Packed = And<SizeAbove, fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool>;

fn is_json(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

type Routed = Response<CompressionBody<Body>>;

/// The router, and around it what holds for every request whatever its route: limits, an id, a log
/// span, panics caught, problems rendered, metrics.
///
/// It is one function instead of a stack of layers, because each layer on a router costs a request
/// some allocations, and because the order in which things happen can be read here.
#[derive(Clone)]
pub struct App {
    router: Compression<Router, Packed>,
    settings: ServerSettings,
    metrics: HttpMetrics,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl App {
    /// Wraps a router.
    #[must_use]
    pub fn new(router: Router, settings: ServerSettings) -> Self {
        HttpMetrics::describe();
        let smallest = SizeAbove::new(settings.http_compression_bytes_min);
        Self {
            router: CompressionLayer::new()
                .compress_when(smallest.and(is_json as fn(_, _, &_, &_) -> _))
                .layer(router),
            settings,
            metrics: HttpMetrics::default(),
        }
    }

    /// Answers a request. It never fails: an error is a response too.
    pub async fn handle<B>(self, request: Request<B>) -> Response<AppBody>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let begun = Instant::now();
        let context = Arc::new(RequestContext::of(&request));
        let method = request.method().clone();
        let span = info_span!("request", request_id = context.id.as_str());
        let answered = async {
            let outcome = route(self.router, &self.settings, request, &context).await;
            let routed = outcome.as_ref().ok();
            let path: Option<MatchedPath> =
                routed.and_then(|routed| routed.extensions().get().cloned());
            let (mut response, problem) = explain(outcome, &context.id);
            let done = Done {
                method: &method,
                route: path.as_ref().map(MatchedPath::as_str),
                status: response.status(),
                took: begun.elapsed(),
            };
            self.metrics.record(&done);
            log(&done, problem.as_deref(), &context);
            finish(&mut response, &method, &context.id);
            response
        };
        answered.instrument(span).await
    }
}

/// Checks the limits and asks the router; a panic on the way is a problem like any other.
async fn route<B>(
    router: Compression<Router, Packed>,
    settings: &ServerSettings,
    mut request: Request<B>,
    context: &Arc<RequestContext>,
) -> Result<Routed, Problem>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    limits::check(&request, settings)?;
    request.extensions_mut().insert(Arc::clone(context));
    let answered = AssertUnwindSafe(router.oneshot(request))
        .catch_unwind()
        .await;
    answered.map(|Ok(response)| response).map_err(|panic| {
        Problem::new(Code::Internal).because(anyhow!("panic: {}", message(&*panic)))
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Makes every error a problem with a body: those raised by our code, and those of the router and
/// of others, which come with a bare status.
fn explain(
    outcome: Result<Routed, Problem>,
    id: &RequestId,
) -> (Response<AppBody>, Option<Arc<Problem>>) {
    let routed = match outcome {
        Ok(routed) => routed,
        Err(problem) => {
            let problem = Arc::new(problem);
            let mut response = rendered(&problem, id);
            response
                .headers_mut()
                .extend(problem.headers().iter().cloned());
            return (response, Some(problem));
        }
    };
    let raised = routed
        .extensions()
        .get()
        .map(|Raised(problem)| Arc::clone(problem));
    let Some(problem) = raised.or_else(|| unexplained(&routed)) else {
        return (routed.map(Either::Left), None);
    };
    let mut response = rendered(&problem, id);
    for (name, value) in routed.headers() {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            response.headers_mut().append(name, value.clone());
        }
    }
    (response, Some(problem))
}

/// An error response that nobody of ours made: it has no body, or one of plain text.
fn unexplained(routed: &Routed) -> Option<Arc<Problem>> {
    let status = routed.status();
    let content_type = routed.headers().get(header::CONTENT_TYPE);
    let plain = content_type.is_none_or(|value| value.as_bytes().starts_with(b"text/plain"));
    (plain && (status.is_client_error() || status.is_server_error()))
        .then(|| Arc::new(Problem::new(Code::of_status(status))))
}

fn rendered(problem: &Problem, id: &RequestId) -> Response<AppBody> {
    // A problem is text and numbers, which always serialize.
    let body = serde_json::to_vec(&problem.body(id.as_str())).unwrap_or_default();
    let mut response = Response::new(Either::Right(Full::new(Bytes::from(body))));
    *response.status_mut() = problem.code().status();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    response
}

/// What is our fault is logged once, here, with its causes. A refusal under overload has none and
/// is counted only: a line for each would make the overload worse. So would one for each success.
fn log(done: &Done<'_>, problem: Option<&Problem>, context: &RequestContext) {
    let &Done {
        method,
        route,
        status,
        took,
    } = done;
    let status_code = status.as_u16();
    let api_key = context.caller.get().map(|name| &**name);
    let code = problem.map(|problem| problem.code().as_str());
    match problem.and_then(Problem::source) {
        Some(source) if status.is_server_error() => {
            let error = format!("{source:#}");
            error!(%method, route, status = status_code, code, api_key, error, "request failed");
        }
        _ => debug!(%method, route, status = status_code, code, api_key, ?took, "request answered"),
    }
}

fn finish(response: &mut Response<AppBody>, method: &Method, id: &RequestId) {
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id.header());
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // Balances and payments belong in no cache; the documentation's files say otherwise themselves.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if method == Method::HEAD
        && let Either::Right(problem) = response.body_mut()
    {
        *problem = Full::default();
    }
}
