use std::time::Instant;

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{Answer, Api, eventually, make_key};

async fn with_header(api: &Api, value: &str) -> Answer {
    let request = Request::builder()
        .uri("/v1/accounts")
        .header(header::AUTHORIZATION, value);
    api.send(request.body(Body::empty()).unwrap()).await
}

async fn with_key(api: &Api, key: &str) -> Answer {
    with_header(api, &format!("Bearer {key}")).await
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn without_a_live_key_nothing_below_v1_answers(pool: PgPool) {
    let api = Api::new(pool).await;
    let unknown = format!("po_{}", "x".repeat(43));
    let missing = Request::builder()
        .uri("/v1/accounts")
        .body(Body::empty())
        .unwrap();
    let mut answers = vec![api.send(missing).await];
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer po_x",
        "Basic cG86cG8=",
        &api.key,
        &format!("Bearer {unknown}"),
    ] {
        answers.push(with_header(&api, value).await);
    }
    let twice = Request::builder()
        .uri("/v1/accounts")
        .header("authorization", format!("Bearer {}", api.key));
    let twice = twice
        .header("authorization", "Bearer x")
        .body(Body::empty())
        .unwrap();
    answers.push(api.send(twice).await);
    for answer in answers {
        answer.assert_problem(401, "unauthorized");
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer realm=\"postonce\""
        );
    }
    assert_eq!(
        with_header(&api, &format!("bearer {}", api.key))
            .await
            .status,
        200
    );
    api.end().await;
}

/// Every operation of the document, with its scope.
fn operations() -> Vec<(Method, String, Option<String>)> {
    let document: Value = serde_json::from_str(&api::openapi::document_json()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let scope = operation["security"][0]["api_key"][0]
                .as_str()
                .map(str::to_owned);
            let path = path.replace("{id}", "01920f4e-6c00-7000-8000-000000000001");
            found.push((method, path, scope));
        }
    }
    found
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn every_operation_needs_the_scope_that_its_document_names(pool: PgPool) {
    let api = Api::new(pool).await;
    let mut checked = 0;
    for (method, path, scope) in operations() {
        assert_eq!(scope.is_some(), path.starts_with("/v1/"), "{method} {path}");
        let Some(scope) = scope else { continue };
        let others = ["read", "write", "operate"]
            .into_iter()
            .filter(|other| *other != scope);
        let name = format!("{method} {path}");
        let key = make_key(&api.pool, &name, &others.collect::<Vec<_>>().join(",")).await;
        let request = |key: Option<&str>| {
            let mut request = Request::builder().method(&method).uri(&path);
            if let Some(key) = key {
                request = request.header("authorization", format!("Bearer {key}"));
            }
            request.body(Body::empty()).unwrap()
        };
        api.send(request(None))
            .await
            .assert_problem(401, "unauthorized");
        let problem = api
            .send(request(Some(&key)))
            .await
            .assert_problem(403, "missing_scope");
        assert!(
            problem["detail"].as_str().unwrap().contains(&scope),
            "{problem}"
        );
        let allowed = api.send(request(Some(&api.key))).await;
        assert!(!matches!(allowed.status.as_u16(), 401 | 403), "{name}");
        checked += 1;
    }
    assert_eq!(checked, 14);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_new_key_works_at_once(pool: PgPool) {
    // Without the question for it, it would be known after five seconds only.
    let api = Api::with(pool, &["--api-keys-refresh-ms=5000"]).await;
    assert_eq!(api.get("/v1/accounts").await.status, 200);
    let key = make_key(&api.pool, "new", "read").await;
    assert_eq!(with_key(&api, &key).await.status, 200);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_revoked_or_expired_key_ends_within_seconds(pool: PgPool) {
    let api = Api::new(pool).await;
    for end in ["revoked_at = now()", "expires_at = now()"] {
        let key = make_key(&api.pool, end, "read").await;
        assert_eq!(with_key(&api, &key).await.status, 200);
        let ended = Instant::now();
        let update = format!("UPDATE api_keys SET {end} WHERE name = $1");
        sqlx::query(sqlx::AssertSqlSafe(update))
            .bind(end)
            .execute(&api.pool)
            .await
            .unwrap();
        eventually("the key is refused", async || {
            with_key(&api, &key).await.status == 401
        })
        .await;
        // A busy machine may delay the test itself.
        assert!(ended.elapsed().as_secs() < 30);
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_flood_of_unknown_keys_is_no_flood_of_queries(pool: PgPool) {
    let api = Api::with(pool, &["--api-keys-refresh-ms=5000"]).await;
    let began = Instant::now();
    let keys: Vec<_> = (0..200).map(|at| format!("po_{at:0>43}")).collect();
    let answers = futures_util::future::join_all(keys.iter().map(|key| with_key(&api, key))).await;
    assert!(answers.iter().all(|answer| answer.status == 401));
    // They waited for one load together, or for a few.
    let calls: i64 = sqlx::query_scalar("SELECT coalesce(sum(seq_scan), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'api_keys'")
        .fetch_one(&api.pool)
        .await
        .unwrap();
    let loads_at_most = i64::try_from(began.elapsed().as_millis() / 100).unwrap() + 5;
    assert!(
        calls <= loads_at_most,
        "{calls} scans, at most {loads_at_most} expected"
    );
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn without_the_database_nobody_is_let_in_and_nobody_is_called_a_stranger(pool: PgPool) {
    let api = Api::new(pool.clone()).await;
    assert_eq!(api.get("/v1/accounts").await.status, 200);
    eventually("ready", async || api.readiness.reasons().is_empty()).await;
    sqlx::query("ALTER TABLE api_keys RENAME TO keys_away")
        .execute(&pool)
        .await
        .unwrap();
    let unknown = with_key(&api, &format!("po_{}", "x".repeat(43))).await;
    unknown.assert_problem(503, "unavailable");
    eventually("unready", async || !api.readiness.reasons().is_empty()).await;
    let ready = api
        .send(
            Request::builder()
                .uri("/ready")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["reasons"]["database"].is_string());
    eventually("the known key is refused too", async || {
        api.get("/v1/accounts").await.status == 503
    })
    .await;
    sqlx::query("ALTER TABLE keys_away RENAME TO api_keys")
        .execute(&pool)
        .await
        .unwrap();
    eventually("back", async || api.get("/v1/accounts").await.status == 200).await;
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_name_is_never_used_twice(pool: PgPool) {
    let api = Api::new(pool).await;
    let mut connection = api.pool.acquire().await.unwrap();
    let taken =
        api::auth::admin::create(&mut connection, "tests", "read".parse().unwrap(), None).await;
    assert!(taken.unwrap_err().to_string().contains("tests"));
    drop(connection);
    let body = api
        .post("/v1/accounts", &json!({ "currency": "EUR" }))
        .await;
    assert_eq!(body.status, 201);
    api.end().await;
}
