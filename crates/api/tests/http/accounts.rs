use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Api, item};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_account_is_opened_empty_and_found_at_its_location(pool: PgPool) {
    let api = Api::new(pool).await;
    let opened = api
        .post("/v1/accounts", &json!({ "currency": "JPY" }))
        .await;
    assert_eq!(opened.status, 201);
    let account = opened.json();
    assert_eq!(account["currency"], "JPY");
    assert_eq!(account["balance_cents"], 0);
    assert_eq!(account["status"], "ACTIVE");
    assert_eq!(account["entry_count"], 0);
    let found = api.get(opened.header("location")).await;
    assert_eq!((found.status.as_u16(), found.json()), (200, account));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_repeat_with_the_clients_id_opens_nothing(pool: PgPool) {
    let api = Api::new(pool).await;
    let id = Uuid::new_v4();
    let body = json!({ "id": id, "currency": "EUR" });
    let first = api.post("/v1/accounts", &body).await;
    assert_eq!(
        (first.status.as_u16(), &first.json()["id"]),
        (201, &json!(id))
    );
    let again = api.post("/v1/accounts", &body).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, first.json()));
    assert_eq!(again.header("location"), first.header("location"));
    let other = api
        .post("/v1/accounts", &json!({ "id": id, "currency": "USD" }))
        .await;
    other.assert_problem(409, "account_exists");
    let counted: Result<i64, _> = sqlx::query_scalar("SELECT count(*) FROM accounts")
        .fetch_one(&api.pool)
        .await;
    assert_eq!(counted.unwrap(), 1);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_account_that_breaks_a_rule_is_refused_field_by_field(pool: PgPool) {
    let api = Api::new(pool).await;
    let body = json!({ "id": "00000000-0000-0000-0000-000000000000", "currency": "EURO" });
    let problem = api
        .post("/v1/accounts", &body)
        .await
        .assert_problem(422, "validation_failed");
    let fields: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["field"])
        .collect();
    assert_eq!(fields, ["currency", "id"]);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_is_not_there_is_not_found(pool: PgPool) {
    let api = Api::new(pool).await;
    let nobody = Uuid::new_v4();
    for path in [
        format!("/v1/accounts/{nobody}"),
        format!("/v1/accounts/{nobody}/entries"),
    ] {
        api.get(&path)
            .await
            .assert_problem(404, "account_not_found");
    }
    let path = format!("/v1/accounts/{nobody}");
    let changed = api.patch(&path, &json!({ "status": "ACTIVE" })).await;
    changed.assert_problem(404, "account_not_found");
    for path in [
        "/v1/accounts/x",
        "/v1/accounts/x/entries",
        "/v1/transactions/%ff",
        "/v1/accounts/%00",
    ] {
        let problem = api.get(path).await.assert_problem(400, "invalid_path");
        assert_eq!(problem["errors"][0]["field"], "id");
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_suspended_account_refuses_payments_until_it_is_active_again(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let path = format!("/v1/accounts/{account}");
    let suspended = api.patch(&path, &json!({ "status": "SUSPENDED" })).await;
    assert_eq!(
        (suspended.status.as_u16(), &suspended.json()["status"]),
        (200, &json!("SUSPENDED"))
    );
    let again = api.patch(&path, &json!({ "status": "SUSPENDED" })).await;
    assert_eq!(
        (again.status.as_u16(), again.json()),
        (200, suspended.json()),
        "a repeat changes nothing"
    );
    let refused = api.post("/v1/transactions", &item(&account, "k")).await;
    refused.assert_problem(409, "account_suspended");
    assert_eq!(
        api.patch(&path, &json!({ "status": "ACTIVE" }))
            .await
            .status,
        200
    );
    api.accept(&account, "k").await;
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn only_a_known_status_can_be_set(pool: PgPool) {
    let api = Api::new(pool).await;
    let path = format!("/v1/accounts/{}", api.open_account("EUR").await);
    let closed = api.patch(&path, &json!({ "status": "CLOSED" })).await;
    closed.assert_problem(422, "validation_failed");
    let balance = api
        .patch(&path, &json!({ "status": "ACTIVE", "balance_cents": 5 }))
        .await;
    balance.assert_problem(400, "invalid_body");
    api.patch(&path, &json!({}))
        .await
        .assert_problem(400, "invalid_body");
    api.end().await;
}
