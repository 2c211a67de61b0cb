use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::Api;

async fn post_entries(api: &Api, account: &str, numbers: std::ops::RangeInclusive<i64>) {
    for number in numbers {
        sqlx::query("INSERT INTO ledger_entries (account_id, entry_no, transaction_id, amount_cents, balance_after_cents) VALUES ($1::uuid, $2, $3, 5, $2 * 5)")
            .bind(account)
            .bind(number)
            .bind(Uuid::now_v7())
            .execute(&api.pool)
            .await
            .unwrap();
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_statement_shows_the_newest_entry_first(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let path = format!("/v1/accounts/{account}/entries");
    assert_eq!(
        api.get(&path).await.json(),
        json!({ "data": [], "next_cursor": null })
    );
    post_entries(&api, &account, 1..=5).await;
    let page = api.get(&format!("{path}?limit=2")).await.json();
    let numbers = |page: &serde_json::Value| {
        let rows = page["data"].as_array().unwrap().iter();
        rows.map(|row| row["entry_no"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&page), [5, 4]);
    assert_eq!(page["data"][0]["balance_after_cents"], 25);
    // Entries posted in the meantime belong to no later page.
    post_entries(&api, &account, 6..=7).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = api
        .get(&format!("{path}?limit=200&cursor={cursor}"))
        .await
        .json();
    assert_eq!(numbers(&rest), [3, 2, 1]);
    assert!(rest["next_cursor"].is_null());
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_cursor_belongs_to_one_account(pool: PgPool) {
    let api = Api::new(pool).await;
    let (one, other) = (api.open_account("EUR").await, api.open_account("EUR").await);
    post_entries(&api, &one, 1..=2).await;
    post_entries(&api, &other, 1..=2).await;
    let page = api
        .get(&format!("/v1/accounts/{one}/entries?limit=1"))
        .await
        .json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let answer = api
        .get(&format!("/v1/accounts/{other}/entries?cursor={cursor}"))
        .await;
    answer.assert_problem(400, "invalid_query");
    api.end().await;
}
