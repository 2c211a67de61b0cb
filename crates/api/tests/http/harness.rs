use std::time::Duration;

use api::{
    Service,
    auth::{Scopes, admin},
    settings::{Cli, Settings},
};
use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use common::{admin::Readiness, db::DatabaseUrl, settings::parse_from};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

/// How long a condition may take to come true, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The service over a test's database, without a port.
pub(crate) struct Api {
    pub(crate) service: Service,
    pub(crate) readiness: Readiness,
    /// A key that may do everything.
    pub(crate) key: String,
    /// The database as its owner has it.
    pub(crate) pool: PgPool,
}

/// A response that has arrived.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

/// Settings over a test's database, as the service's own role, which can do no more than in
/// production.
pub(crate) fn settings(pool: &PgPool, flags: &[&str]) -> Settings {
    let flags: Vec<_> = ["api"].iter().chain(flags).copied().collect();
    let mut settings = parse_from::<Cli>(&flags).unwrap().settings;
    let options = (*pool.connect_options())
        .clone()
        .options([("role", "postonce_api")]);
    settings.database_url = DatabaseUrl::from(options);
    settings.intake.intake_lanes = 2;
    settings
}

impl Api {
    pub(crate) async fn new(pool: PgPool) -> Self {
        Self::with(pool, &[]).await
    }

    pub(crate) async fn with(pool: PgPool, flags: &[&str]) -> Self {
        let readiness = Readiness::default();
        let service = Service::start(&settings(&pool, flags), &readiness, &Handle::current());
        let key = make_key(&pool, "tests", "read,write,operate").await;
        Self {
            service,
            readiness,
            key,
            pool,
        }
    }

    pub(crate) async fn end(self) {
        self.service.end().await;
    }

    /// Sends any request, as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.service.app.clone().handle(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    /// A request with the key.
    pub(crate) fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = self.request(Method::GET, path).body(Body::empty());
        self.send(request.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, &[]).await
    }

    pub(crate) async fn post_with(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.post_bytes(path, body.to_string().into_bytes(), headers)
            .await
    }

    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = self
            .request(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        let request = self
            .request(Method::PATCH, path)
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.to_string().into()).unwrap())
            .await
    }

    /// Opens an account and gives its id.
    pub(crate) async fn open_account(&self, currency: &str) -> String {
        let answer = self
            .post("/v1/accounts", &json!({ "currency": currency }))
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Posts a transaction of 5 cents and gives it.
    pub(crate) async fn accept(&self, account: &str, key: &str) -> Value {
        let answer = self.post("/v1/transactions", &item(account, key)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
        answer.json()
    }

    /// How many transactions and events are stored.
    pub(crate) async fn written(&self) -> (i64, i64) {
        let count =
            "SELECT (SELECT count(*) FROM transactions), (SELECT count(*) FROM outbox_events)";
        sqlx::query_as(count).fetch_one(&self.pool).await.unwrap()
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that this is the problem of a code, with everything that every problem has.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], format!("urn:postonce:problem:{code}"));
        assert_eq!(body["request_id"], self.header("x-request-id"));
        assert!(!body["title"].as_str().unwrap().is_empty());
        assert!(!body["detail"].as_str().unwrap().is_empty());
        body
    }
}

/// A payment of 5 cents with its key in the body.
pub(crate) fn item(account: &str, key: &str) -> Value {
    json!({
        "account_id": account, "amount_cents": 5, "currency": "EUR", "type": "CREDIT",
        "idempotency_key": key
    })
}

pub(crate) async fn make_key(pool: &PgPool, name: &str, scopes: &str) -> String {
    let mut connection = pool.acquire().await.unwrap();
    let scopes: Scopes = scopes.parse().unwrap();
    let key = admin::create(&mut connection, name, scopes, None)
        .await
        .unwrap();
    key.reveal().to_owned()
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {PATIENCE:?}");
}
