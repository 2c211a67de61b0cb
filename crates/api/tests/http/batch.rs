use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Api, item};

const PATH: &str = "/v1/transactions/batch";

fn statuses(results: &Value) -> Vec<u64> {
    let results = results["results"].as_array().unwrap();
    results
        .iter()
        .map(|result| result["status"].as_u64().unwrap())
        .collect()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn each_item_has_its_own_result(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let before = api.accept(&account, "before").await;
    let mut other_content = item(&account, "before");
    other_content["amount_cents"] = 6.into();
    let mut keyless = item(&account, "");
    keyless.as_object_mut().unwrap().remove("idempotency_key");
    let items = json!({ "transactions": [
        item(&account, "new"),
        item(&account, "before"),
        item(&account, "new"),
        other_content,
        item(&Uuid::new_v4().to_string(), "new"),
        keyless,
        item(&account, ""),
        { "surprise": true },
        "no object",
        [account, 5, "EUR", "CREDIT", "array"],
        item(&account, "last"),
    ] });
    let answer = api.post(PATH, &items).await;
    assert_eq!(answer.status, 207);
    let body = answer.json();
    assert_eq!(
        statuses(&body),
        [202, 200, 200, 422, 404, 400, 422, 400, 400, 400, 202]
    );
    let results = body["results"].as_array().unwrap();
    assert!(
        results
            .iter()
            .enumerate()
            .all(|(at, result)| result["index"] == at)
    );
    assert_eq!(results[1]["transaction"], before);
    assert_eq!(results[0]["transaction"], results[2]["transaction"]);
    assert_eq!(results[3]["problem"]["code"], "idempotency_key_reused");
    assert_eq!(results[5]["problem"]["code"], "idempotency_key_missing");
    let keyless = results[5]["problem"]["detail"].as_str().unwrap();
    assert!(!keyless.contains("header"), "{keyless}");
    assert_eq!(
        results[5]["problem"]["request_id"],
        answer.header("x-request-id")
    );
    assert_eq!(results[7]["problem"]["errors"][0]["field"], "surprise");
    assert!(
        results
            .iter()
            .all(|r| r.get("transaction").is_some() != r.get("problem").is_some())
    );
    assert_eq!(api.written().await, (3, 3));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn items_of_one_account_are_written_in_their_order(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let items: Vec<_> = (0..300)
        .map(|at| item(&account, &format!("k{at:03}")))
        .collect();
    let answer = api.post(PATH, &json!({ "transactions": items })).await;
    assert_eq!(statuses(&answer.json()), vec![202; 300]);
    let by_seq = "SELECT t.idempotency_key FROM outbox_events e JOIN transactions t ON t.id = e.aggregate_id ORDER BY e.seq";
    let keys: Vec<String> = sqlx::query_scalar(by_seq)
        .fetch_all(&api.pool)
        .await
        .unwrap();
    assert_eq!(keys.len(), 300);
    assert!(keys.is_sorted(), "{keys:?}");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_batch_has_1_to_1000_items_and_no_key_of_its_own(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    for count in [0, 1_001] {
        let items = vec![item(&account, "k"); count];
        let problem = api.post(PATH, &json!({ "transactions": items })).await;
        let problem = problem.assert_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], "transactions");
    }
    let one = json!({ "transactions": [item(&account, "k")] });
    let keyed = api.post_with(PATH, &one, &[("idempotency-key", "k")]).await;
    keyed.assert_problem(400, "idempotency_key_on_batch");
    for wrong in [
        json!({}),
        json!([]),
        json!({ "transactions": {} }),
        json!({ "transactions": null }),
    ] {
        api.post(PATH, &wrong)
            .await
            .assert_problem(400, "invalid_body");
    }
    assert_eq!(api.written().await, (0, 0));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_queue_without_room_for_all_takes_none(pool: PgPool) {
    let api = Api::with(pool, &["--intake-queue-rows-max=1000"]).await;
    let account = api.open_account("EUR").await;
    let items: Vec<_> = (0..1_000)
        .map(|at| item(&account, &format!("k{at}")))
        .collect();
    let batch = json!({ "transactions": items });
    // The lane takes 500 of the first batch and waits for the lock, so 500 places are free.
    let mut lock = api.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let second = async {
        let answer = api.post(PATH, &batch).await;
        lock.rollback().await.unwrap();
        answer
    };
    let (first, second) = tokio::join!(api.post(PATH, &batch), second);
    second.assert_problem(503, "overloaded");
    assert_eq!(second.header("retry-after"), "1");
    assert_eq!(statuses(&first.json()), vec![202; 1_000]);
    assert_eq!(api.written().await, (1_000, 1_000));
    api.end().await;
}
