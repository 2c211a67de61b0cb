use api::{problem::Problem, server::App};
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
    routing::get,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Api, settings};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_unknown_route_is_a_problem_too(pool: PgPool) {
    let api = Api::new(pool).await;
    for path in [
        "/",
        "/v1",
        "/v1/accounts/",
        "/v1/nothing",
        "/v2/accounts",
        "/v1/refunds",
        "/docs/nothing",
        "//",
    ] {
        api.get(path).await.assert_problem(404, "route_not_found");
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_method_that_a_path_does_not_take_is_answered_with_those_it_takes(pool: PgPool) {
    let api = Api::new(pool).await;
    for (path, allow) in [
        ("/v1/accounts", vec!["GET", "HEAD", "POST"]),
        ("/v1/accounts/x", vec!["GET", "HEAD", "PATCH"]),
        ("/v1/transactions/batch", vec!["POST", "GET", "HEAD"]),
        ("/health", vec!["GET", "HEAD"]),
    ] {
        for method in ["DELETE", "OPTIONS", "TRACE", "BREW"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = api
                .send(api.request(method, path).body(Body::empty()).unwrap())
                .await;
            answer.assert_problem(405, "method_not_allowed");
            let mut allowed: Vec<_> = answer.header("allow").split(',').collect();
            let mut expected = allow.clone();
            // GET on the batch's path is GET of a transaction called `batch`.
            if path.ends_with("batch") {
                expected = vec!["POST"];
            }
            allowed.sort_unstable();
            expected.sort_unstable();
            assert_eq!(allowed, expected, "{path}");
        }
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn head_is_get_without_its_body(pool: PgPool) {
    let api = Api::new(pool).await;
    let path = format!("/v1/accounts/{}", api.open_account("EUR").await);
    for (path, status) in [
        (path.as_str(), 200),
        ("/v1/nothing", 404),
        ("/openapi.json", 200),
    ] {
        let answer = api
            .send(api.request(Method::HEAD, path).body(Body::empty()).unwrap())
            .await;
        assert_eq!((answer.status.as_u16(), answer.bytes.len()), (status, 0));
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_request_has_one_name_the_clients_or_ours(pool: PgPool) {
    let api = Api::new(pool).await;
    for (sent, kept) in [
        ("order-4711", true),
        ("a b", false),
        ("", false),
        (&"x".repeat(129), false),
    ] {
        let request = api
            .request(Method::GET, "/v1/nothing")
            .header("x-request-id", sent);
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        answer.assert_problem(404, "route_not_found");
        assert_eq!(answer.header("x-request-id") == sent, kept, "{sent}");
    }
    let ok = api.get("/v1/accounts").await;
    assert!(ok.header("x-request-id").parse::<uuid::Uuid>().is_ok());
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_body_past_the_limit_is_refused_whether_it_says_its_size_or_not(pool: PgPool) {
    let api = Api::with(pool, &["--http-body-bytes-max=2048"]).await;
    let too_large = vec![b' '; 2_049];
    let declared = api
        .post_bytes(
            "/v1/accounts",
            too_large.clone(),
            &[("content-length", "2049")],
        )
        .await;
    let undeclared = api.post_bytes("/v1/accounts", too_large, &[]).await;
    for answer in [declared, undeclared] {
        let problem = answer.assert_problem(413, "body_too_large");
        assert!(problem["detail"].as_str().unwrap().contains("2048 bytes"));
    }
    let mut largest = br#"{"currency":"EUR"}"#.to_vec();
    largest.resize(2_048, b' ');
    assert_eq!(
        api.post_bytes("/v1/accounts", largest, &[]).await.status,
        201
    );
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn headers_and_uris_past_their_limits_are_refused(pool: PgPool) {
    let api = Api::new(pool).await;
    let uri = format!("/v1/accounts?cursor={}", "x".repeat(8_192));
    api.get(&uri).await.assert_problem(414, "uri_too_long");
    let large = api
        .request(Method::GET, "/v1/accounts")
        .header("x-large", "x".repeat(16_384));
    api.send(large.body(Body::empty()).unwrap())
        .await
        .assert_problem(431, "headers_too_large");
    let mut many = api.request(Method::GET, "/v1/accounts");
    for at in 0..64 {
        many = many.header(format!("x-{at}"), "1");
    }
    api.send(many.body(Body::empty()).unwrap())
        .await
        .assert_problem(431, "headers_too_large");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn only_plain_json_is_taken(pool: PgPool) {
    let api = Api::new(pool).await;
    let body = json!({ "currency": "EUR" }).to_string();
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonp"),
    ] {
        let mut request = api.request(Method::POST, "/v1/accounts");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = api.send(request.body(body.clone().into()).unwrap()).await;
        answer.assert_problem(415, "unsupported_media_type");
    }
    let encoded = api
        .post_bytes(
            "/v1/accounts",
            body.clone().into(),
            &[("content-encoding", "gzip")],
        )
        .await;
    encoded.assert_problem(415, "unsupported_media_type");
    assert_eq!(encoded.header("accept-encoding"), "identity");
    let charset = api
        .request(Method::POST, "/v1/accounts")
        .header("content-type", "application/json; charset=utf-8");
    assert_eq!(
        api.send(charset.body(body.into()).unwrap()).await.status,
        201
    );
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn large_responses_are_compressed_and_small_ones_are_not(pool: PgPool) {
    let api = Api::new(pool).await;
    for _ in 0..20 {
        api.open_account("EUR").await;
    }
    let request = |path| {
        api.request(Method::GET, path)
            .header("accept-encoding", "gzip")
    };
    let large = api
        .send(request("/v1/accounts").body(Body::empty()).unwrap())
        .await;
    assert_eq!(
        (large.header("content-encoding"), &large.bytes[..2]),
        ("gzip", &[0x1f, 0x8b][..])
    );
    let small = api
        .send(request("/v1/accounts?limit=1").body(Body::empty()).unwrap())
        .await;
    assert_eq!(small.header("content-encoding"), "");
    assert_eq!(api.get("/v1/accounts").await.header("content-encoding"), "");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn no_answer_is_kept_in_a_cache_or_taken_for_another_type(pool: PgPool) {
    let api = Api::new(pool).await;
    for path in ["/v1/accounts", "/v1/nothing", "/health"] {
        let answer = api.get(path).await;
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_database_that_does_not_answer_is_unavailable_and_says_nothing_of_itself(pool: PgPool) {
    let api = Api::with(pool.clone(), &["--database-statement-timeout-ms=2000"]).await;
    let account = api.open_account("EUR").await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let answer = api.get(&format!("/v1/accounts/{account}")).await;
    let problem = answer.assert_problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    assert!(!problem.to_string().contains("timeout"), "{problem}");
    lock.rollback().await.unwrap();
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_database_that_answers_too_late_is_a_timeout(pool: PgPool) {
    let api = Api::with(pool.clone(), &["--http-request-timeout-ms=1000"]).await;
    let account = Uuid::now_v7();
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    api.get(&format!("/v1/accounts/{account}"))
        .await
        .assert_problem(504, "timeout");
    lock.rollback().await.unwrap();
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_schema_that_is_not_ours_is_an_opaque_error(pool: PgPool) {
    let api = Api::new(pool.clone()).await;
    sqlx::query("ALTER TABLE accounts RENAME COLUMN currency TO secret_currency")
        .execute(&pool)
        .await
        .unwrap();
    let problem = api
        .get("/v1/accounts")
        .await
        .assert_problem(500, "internal");
    assert!(!problem.to_string().contains("currency"), "{problem}");
    api.end().await;
}

async fn panics() -> Result<&'static str, Problem> {
    panic!("the secret of the panic")
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_panic_is_an_opaque_error(pool: PgPool) {
    let router = Router::new().route("/panics", get(panics));
    let app = App::new(router, settings(&pool, &[]).server);
    let response = app
        .handle(
            Request::builder()
                .uri("/panics")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let problem: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(problem["code"], "internal");
    assert!(!problem.to_string().contains("secret"), "{problem}");
}
