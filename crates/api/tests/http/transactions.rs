use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Api, item};

fn payment(account: &str) -> Value {
    json!({ "account_id": account, "amount_cents": 5, "currency": "EUR", "type": "CREDIT" })
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_new_payment_is_accepted_and_found_at_its_location(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let accepted = api
        .post_with(
            "/v1/transactions",
            &payment(&account),
            &[("idempotency-key", "order-1")],
        )
        .await;
    assert_eq!(accepted.status, 202);
    assert_eq!(accepted.header("idempotent-replayed"), "");
    let transaction = accepted.json();
    assert_eq!(transaction["status"], "PENDING");
    assert_eq!(transaction["idempotency_key"], "order-1");
    assert_eq!(transaction["failure_reason"], Value::Null);
    assert_eq!(transaction["processed_at"], Value::Null);
    let found = api.get(accepted.header("location")).await;
    assert_eq!((found.status.as_u16(), found.json()), (200, transaction));
    assert_eq!(api.written().await, (1, 1));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replay_returns_the_original_and_writes_no_event(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let original = api.accept(&account, "order-1").await;
    let suspend = format!("/v1/accounts/{account}");
    api.patch(&suspend, &json!({ "status": "SUSPENDED" })).await;
    // In the body, bare, and quoted, it is one key.
    for headers in [
        vec![],
        vec![("idempotency-key", "order-1")],
        vec![("idempotency-key", "\"order-1\"")],
    ] {
        let body = if headers.is_empty() {
            item(&account, "order-1")
        } else {
            payment(&account)
        };
        let replay = api.post_with("/v1/transactions", &body, &headers).await;
        assert_eq!(
            (replay.status.as_u16(), replay.json()),
            (200, original.clone())
        );
        assert_eq!(replay.header("idempotent-replayed"), "true");
    }
    assert_eq!(api.written().await, (1, 1));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_key_with_other_content_is_refused(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    api.accept(&account, "order-1").await;
    for (field, value) in [
        ("amount_cents", json!(6)),
        ("type", json!("DEBIT")),
        ("currency", json!("USD")),
    ] {
        let mut body = item(&account, "order-1");
        body[field] = value;
        let reused = api.post("/v1/transactions", &body).await;
        reused.assert_problem(422, "idempotency_key_reused");
    }
    assert_eq!(api.written().await, (1, 1));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn header_and_body_may_agree_but_not_differ(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let body = item(&account, "order-1");
    let differs = api
        .post_with("/v1/transactions", &body, &[("idempotency-key", "order-2")])
        .await;
    differs.assert_problem(400, "idempotency_key_conflict");
    let agrees = api
        .post_with("/v1/transactions", &body, &[("idempotency-key", "order-1")])
        .await;
    assert_eq!(agrees.status, 202);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_key_is_needed_once_and_well_formed(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let body = payment(&account);
    let missing = api.post("/v1/transactions", &body).await;
    missing.assert_problem(400, "idempotency_key_missing");
    let too_long = "k".repeat(256);
    for key in ["", "\"open", "\"\"", "ümlaut", &too_long] {
        let refused = api
            .post_with("/v1/transactions", &body, &[("idempotency-key", key)])
            .await;
        refused.assert_problem(400, "idempotency_key_invalid");
    }
    let twice = [
        ("idempotency-key", "order-1"),
        ("idempotency-key", "order-1"),
    ];
    let refused = api.post_with("/v1/transactions", &body, &twice).await;
    refused.assert_problem(400, "idempotency_key_invalid");
    for key in ["", "nul\0", "ümlaut", &too_long] {
        let refused = api.post("/v1/transactions", &item(&account, key)).await;
        let problem = refused.assert_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], "idempotency_key");
    }
    assert_eq!(api.written().await, (0, 0));
    let longest = "k".repeat(255);
    let accepted = api
        .post_with("/v1/transactions", &body, &[("idempotency-key", &longest)])
        .await;
    assert_eq!(accepted.status, 202);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_refusal_stores_nothing_and_does_not_use_the_key_up(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let unknown = api
        .post(
            "/v1/transactions",
            &item(&Uuid::new_v4().to_string(), "order-1"),
        )
        .await;
    unknown.assert_problem(404, "account_not_found");
    let mut dollars = item(&account, "order-1");
    dollars["currency"] = "USD".into();
    let problem = api
        .post("/v1/transactions", &dollars)
        .await
        .assert_problem(422, "currency_mismatch");
    assert!(
        problem["detail"].as_str().unwrap().contains("EUR"),
        "{problem}"
    );
    assert_eq!(api.written().await, (0, 0));
    api.accept(&account, "order-1").await;
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_unknown_transaction_is_not_found(pool: PgPool) {
    let api = Api::new(pool).await;
    let answer = api
        .get(&format!("/v1/transactions/{}", Uuid::now_v7()))
        .await;
    answer.assert_problem(404, "transaction_not_found");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_largest_amount_is_taken_as_it_is(pool: PgPool) {
    let api = Api::new(pool).await;
    let mut body = item(&api.open_account("EUR").await, "order-1");
    body["amount_cents"] = i64::MAX.into();
    let accepted = api.post("/v1/transactions", &body).await;
    assert_eq!(
        (accepted.status.as_u16(), &accepted.json()["amount_cents"]),
        (202, &json!(i64::MAX))
    );
    api.end().await;
}
