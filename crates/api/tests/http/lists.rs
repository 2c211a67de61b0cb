use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Api, item};

/// Follows the cursors to the end; gives the rows' ids by page.
async fn pages(api: &Api, path: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let path = match cursor.as_str() {
            Some(cursor) => format!("{path}&cursor={cursor}"),
            None => path.to_owned(),
        };
        let answer = api.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page = answer.json();
        pages.push(ids(&page));
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            return pages;
        }
        assert!(pages.len() < 1_000, "the list does not end");
    }
}

fn ids(page: &Value) -> Vec<String> {
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn accept_many(api: &Api, account: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for at in 0..count {
        let transaction = api.accept(account, &format!("{account}-{at}")).await;
        ids.insert(0, transaction["id"].as_str().unwrap().to_owned());
    }
    ids
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_list_goes_through_all_rows_once_newest_first(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let newest_first = accept_many(&api, &account, 7).await;
    let of_account = format!("/v1/transactions?account_id={account}&limit=3");
    for path in [of_account.as_str(), "/v1/transactions?limit=3"] {
        let pages = pages(&api, path).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(pages.concat(), newest_first);
    }
    let whole = api.get("/v1/transactions?limit=7").await.json();
    assert_eq!(
        (ids(&whole), &whole["next_cursor"]),
        (newest_first, &Value::Null)
    );
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn rows_added_between_pages_neither_repeat_nor_hide_any(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let before = accept_many(&api, &account, 6).await;
    for path in [
        format!("/v1/transactions?account_id={account}&limit=2"),
        "/v1/transactions?limit=2".to_owned(),
    ] {
        let seen_before = ids(&api.get(&path).await.json());
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = api.get(&format!("{path}{cursor}")).await.json();
            seen.extend(ids(&page));
            api.accept(&account, &Uuid::new_v4().to_string()).await;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert!(seen.starts_with(&seen_before));
        assert!(seen.ends_with(&before));
        let mut unlike = seen.clone();
        unlike.sort();
        unlike.dedup();
        assert_eq!(unlike.len(), seen.len(), "a row came twice");
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_filtered_list_looks_at_a_bounded_number_of_rows(pool: PgPool) {
    let api = Api::with(pool, &["--list-examined-rows-max=200"]).await;
    let account = api.open_account("EUR").await;
    let mut debit = item(&account, "debit");
    debit["type"] = "DEBIT".into();
    let debit = api.post("/v1/transactions", &debit).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let credits: Vec<_> = (0..450)
        .map(|at| item(&account, &format!("c{at}")))
        .collect();
    api.post(
        "/v1/transactions/batch",
        &json!({ "transactions": credits }),
    )
    .await;
    for path in [
        "/v1/transactions?type=DEBIT".to_owned(),
        format!("/v1/transactions?type=DEBIT&account_id={account}&status=PENDING"),
    ] {
        let pages = pages(&api, &path).await;
        assert_eq!(pages, [vec![], vec![], vec![debit.clone()]]);
    }
    let credits = pages(&api, "/v1/transactions?type=CREDIT&limit=150").await;
    assert_eq!(credits.concat().len(), 450);
    let none = format!("/v1/transactions?account_id={account}&status=FAILED&limit=200");
    assert!(pages(&api, &none).await.concat().is_empty());
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn accounts_are_listed_by_status_in_the_order_of_their_ids(pool: PgPool) {
    let api = Api::with(pool, &["--list-examined-rows-max=200"]).await;
    sqlx::query("INSERT INTO accounts (id, currency, status) SELECT gen_random_uuid(), 'EUR', CASE WHEN n % 50 = 0 THEN 'SUSPENDED' ELSE 'ACTIVE' END FROM generate_series(1, 500) n")
        .execute(&api.pool)
        .await
        .unwrap();
    let all = pages(&api, "/v1/accounts?limit=200").await.concat();
    assert_eq!(all.len(), 500);
    assert!(all.is_sorted());
    let suspended = pages(&api, "/v1/accounts?status=SUSPENDED&limit=4").await;
    assert_eq!(suspended.concat().len(), 10);
    assert!(suspended.concat().is_sorted());
    assert_eq!(
        pages(&api, "/v1/accounts?status=ACTIVE&limit=200")
            .await
            .concat()
            .len(),
        490
    );
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_query_that_is_not_as_documented_is_refused_by_parameter(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    accept_many(&api, &account, 2).await;
    let cursor = api.get("/v1/transactions?limit=1").await.json()["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let table = [
        ("transactions?limit=0", "limit"),
        ("transactions?limit=201", "limit"),
        ("transactions?limit=", "limit"),
        ("transactions?limit=1e1", "limit"),
        ("transactions?limit=5&limit=5", "limit"),
        ("transactions?account_id=x", "account_id"),
        ("transactions?type=credit", "type"),
        ("transactions?type=%00", "type"),
        ("transactions?type=%ff", "type"),
        ("transactions?status=PENDING", "status"),
        ("transactions?cursor=x", "cursor"),
        ("transactions?colour=red", "colour"),
        ("accounts?status=CLOSED", "status"),
        (
            &format!("transactions?type=CREDIT&cursor={cursor}"),
            "cursor",
        ),
        (
            &format!("transactions?account_id={account}&cursor={cursor}"),
            "cursor",
        ),
        (&format!("accounts?cursor={cursor}"), "cursor"),
        (
            &format!("accounts/{account}/entries?cursor={cursor}"),
            "cursor",
        ),
        (
            &format!("transactions?cursor={}", cursor.to_lowercase()),
            "cursor",
        ),
    ];
    for (path, parameter) in table {
        let problem = api
            .get(&format!("/v1/{path}"))
            .await
            .assert_problem(400, "invalid_query");
        assert_eq!(problem["errors"][0]["field"], parameter, "{path}");
    }
    assert_eq!(
        api.get(&format!("/v1/transactions?cursor={cursor}&limit=200"))
            .await
            .status,
        200
    );
    api.end().await;
}
