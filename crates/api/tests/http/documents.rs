use std::collections::HashSet;

use api::problem::Code;
use axum::{body::Body, http::Request};
use serde_json::Value;
use sqlx::PgPool;

use crate::harness::{Answer, Api};

fn document() -> Value {
    serde_json::from_str(&api::openapi::document_json()).unwrap()
}

/// Every operation with its path and method.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let item = item.as_object().unwrap().iter();
            item.map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

async fn open(api: &Api, path: &str) -> Answer {
    api.send(Request::builder().uri(path).body(Body::empty()).unwrap())
        .await
}

#[test]
fn the_committed_document_is_the_codes() {
    let committed = include_str!("../../../../docs/openapi.json");
    assert!(
        committed == api::openapi::document_json(),
        "docs/openapi.json is old: make openapi"
    );
}

#[test]
fn every_operation_is_documented_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = HashSet::new();
    for (name, operation) in operations(&document) {
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap()),
            "{name}"
        );
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{name}");
        assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{name}");
        if let Some(body) = operation.get("requestBody") {
            assert!(
                body["content"]["application/json"]["example"].is_object(),
                "{name}"
            );
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolved(&document, response);
            assert!(
                response["headers"]["X-Request-Id"].is_object(),
                "{name} {status}"
            );
            for (media_type, content) in response["content"].as_object().unwrap() {
                let has_example =
                    content.get("example").is_some() || content.get("examples").is_some();
                assert!(has_example, "{name} {status} {media_type}");
            }
        }
    }
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.trim_start_matches('#'))
            .expect("a reference leads somewhere"),
        None => value,
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                resolved(document, value);
                members.values().for_each(|member| walk(document, member));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(document, item)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}

#[test]
fn every_problem_belongs_to_some_operation() {
    let document = document();
    let text = document["paths"].to_string();
    // These two come before a route is found.
    let of_no_route = [Code::RouteNotFound, Code::MethodNotAllowed];
    for code in Code::ALL.iter().filter(|code| !of_no_route.contains(code)) {
        let quoted = format!("/{}\"", code.as_str());
        assert!(text.contains(&quoted), "{}", code.as_str());
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_open_routes_need_no_key(pool: PgPool) {
    let api = Api::new(pool).await;
    let health = open(&api, "/health").await;
    assert_eq!(
        (health.status.as_u16(), health.text().as_str()),
        (200, r#"{"status":"alive"}"#)
    );
    crate::harness::eventually("ready", async || open(&api, "/ready").await.status == 200).await;
    let served = open(&api, "/openapi.json").await;
    assert_eq!(served.header("content-type"), "application/json");
    assert_eq!(served.text(), api::openapi::document_json());
    let docs = open(&api, "/docs").await;
    assert_eq!(
        (docs.status.as_u16(), docs.header("location")),
        (303, "/docs/")
    );
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_page_fetches_nothing_from_outside(pool: PgPool) {
    let api = Api::new(pool).await;
    let page = open(&api, "/docs/").await;
    assert_eq!(page.header("content-type"), "text/html");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    assert!(
        !policy.contains("http") && !policy.contains('*'),
        "{policy}"
    );
    let html = page.text();
    let mut fetched = 0;
    for attribute in ["src=\"", "href=\""] {
        for link in html.split(attribute).skip(1) {
            let link = link.split('"').next().unwrap();
            assert!(!link.contains("//"), "{link}");
            let file = open(&api, &format!("/docs/{}", link.trim_start_matches("./"))).await;
            assert_eq!(file.status, 200, "{link}");
            fetched += 1;
        }
    }
    assert!(fetched >= 5, "{html}");
    let initializer = open(&api, "/docs/swagger-initializer.js").await.text();
    assert!(
        initializer.contains("/openapi.json") && initializer.contains("\"validatorUrl\": \"none\"")
    );
    assert!(!initializer.contains("http"), "{initializer}");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_pages_files_are_sent_as_they_are(pool: PgPool) {
    let api = Api::new(pool).await;
    for (path, coding) in [
        ("/docs/swagger-ui-bundle.js", None),
        ("/openapi.json", Some("gzip")),
    ] {
        let request = Request::builder()
            .uri(path)
            .header("accept-encoding", "gzip");
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        let sent = answer
            .headers
            .get("content-encoding")
            .map(|value| value.to_str().unwrap());
        assert_eq!(sent, coding, "{path}");
    }
    api.end().await;
}
