use serde_json::Value;
use sqlx::PgPool;

use crate::harness::Api;

/// Bodies of `POST /v1/transactions`, where `ID` stands for an account, and how each is answered:
/// status, code, field. None is a 5xx, and none writes anything.
const BODIES: &[(&str, u16, &str, &str)] = &[
    ("", 400, "malformed_json", ""),
    ("{", 400, "malformed_json", ""),
    ("nonsense", 400, "malformed_json", ""),
    (r#"{"account_id":"ID",}"#, 400, "malformed_json", ""),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":"EUR","type":"CREDIT"} {}"#,
        400,
        "malformed_json",
        "",
    ),
    (
        r#"{"account_id":"ID","amount_cents":05,"currency":"EUR","type":"CREDIT"}"#,
        400,
        "malformed_json",
        "",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":"\ud800","type":"CREDIT"}"#,
        400,
        "malformed_json",
        "",
    ),
    (
        r#"{"account_id":"ID","amount_cents":1e400,"currency":"EUR","type":"CREDIT"}"#,
        400,
        "malformed_json",
        "",
    ),
    (
        "{\"account_id\":\"ID\",\"amount_cents\":5,\"currency\":\"E\u{0}R\",\"type\":\"CREDIT\"}",
        400,
        "malformed_json",
        "",
    ),
    ("null", 400, "invalid_body", "body"),
    ("[]", 400, "invalid_body", "body"),
    (
        r#"["ID",5,"EUR","CREDIT",null]"#,
        400,
        "invalid_body",
        "body",
    ),
    ("\"text\"", 400, "invalid_body", "body"),
    ("{}", 400, "invalid_body", "account_id"),
    (
        r#"{"account_id":"ID","amount_cents":"5","currency":"EUR","type":"CREDIT"}"#,
        400,
        "invalid_body",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5.5,"currency":"EUR","type":"CREDIT"}"#,
        400,
        "invalid_body",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5.0,"currency":"EUR","type":"CREDIT"}"#,
        400,
        "invalid_body",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":1e3,"currency":"EUR","type":"CREDIT"}"#,
        400,
        "invalid_body",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":9223372036854775808,"currency":"EUR","type":"CREDIT"}"#,
        400,
        "invalid_body",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":-9223372036854775809,"currency":"EUR","type":"CREDIT"}"#,
        400,
        "invalid_body",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":null,"currency":"EUR","type":"CREDIT"}"#,
        400,
        "invalid_body",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":["EUR"],"type":"CREDIT"}"#,
        400,
        "invalid_body",
        "currency",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":"EUR","type":true}"#,
        400,
        "invalid_body",
        "type",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":"EUR","typ":"CREDIT"}"#,
        400,
        "invalid_body",
        "typ",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":"EUR","type":"CREDIT","type":"DEBIT"}"#,
        400,
        "invalid_body",
        "type",
    ),
    (
        r#"{"account_id":"ID","amount_cents":0,"currency":"EUR","type":"CREDIT"}"#,
        422,
        "validation_failed",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":-5,"currency":"EUR","type":"CREDIT"}"#,
        422,
        "validation_failed",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":-9223372036854775808,"currency":"EUR","type":"CREDIT"}"#,
        422,
        "validation_failed",
        "amount_cents",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":"XYZ","type":"CREDIT"}"#,
        422,
        "validation_failed",
        "currency",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":"eur","type":"CREDIT"}"#,
        422,
        "validation_failed",
        "currency",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":"E\u0000R","type":"CREDIT"}"#,
        422,
        "validation_failed",
        "currency",
    ),
    (
        r#"{"account_id":"ID","amount_cents":5,"currency":"EUR","type":"credit"}"#,
        422,
        "validation_failed",
        "type",
    ),
    (
        r#"{"account_id":"nobody","amount_cents":5,"currency":"EUR","type":"CREDIT"}"#,
        422,
        "validation_failed",
        "account_id",
    ),
    (
        r#"{"account_id":"ID\u0000","amount_cents":5,"currency":"EUR","type":"CREDIT"}"#,
        422,
        "validation_failed",
        "account_id",
    ),
];

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn each_wrong_body_is_its_own_problem_and_writes_nothing(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let key = [("idempotency-key", "k")];
    for (body, status, code, field) in BODIES {
        let bytes = body.replace("ID", &account).into_bytes();
        let answer = api.post_bytes("/v1/transactions", bytes, &key).await;
        assert_eq!(answer.status.as_u16(), *status, "{body}: {}", answer.text());
        let problem = answer.assert_problem(*status, code);
        assert_eq!(
            problem["errors"][0]["field"].as_str().unwrap_or_default(),
            *field,
            "{body}"
        );
    }
    assert_eq!(api.written().await, (0, 0));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn invalid_utf_8_and_deep_nesting_are_answered_like_any_wrong_body(pool: PgPool) {
    let api = Api::new(pool).await;
    let key = [("idempotency-key", "k")];
    let not_utf_8 = b"{\"currency\":\"E\xffR\"}".to_vec();
    let answer = api.post_bytes("/v1/transactions", not_utf_8, &key).await;
    answer.assert_problem(400, "malformed_json");
    let value = "[".repeat(200_000) + &"]".repeat(200_000);
    for path in ["/v1/transactions", "/v1/transactions/batch", "/v1/accounts"] {
        for body in [
            value.clone(),
            format!("{{\"currency\":{value}}}"),
            format!("{{\"transactions\":[{value}]}}"),
        ] {
            let answer = api.post_bytes(path, body.into_bytes(), &[]).await;
            assert!(
                answer.status.is_client_error() || answer.status == 207,
                "{}",
                answer.text()
            );
        }
    }
    assert_eq!(api.written().await, (0, 0));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_problem_says_all_that_is_wrong_in_words_without_rust(pool: PgPool) {
    let api = Api::new(pool).await;
    let body =
        r#"{"account_id":"x","amount_cents":0,"currency":"x","type":"x","idempotency_key":""}"#;
    let answer = api.post_bytes("/v1/transactions", body.into(), &[]).await;
    let problem = answer.assert_problem(422, "validation_failed");
    let errors = problem["errors"].as_array().unwrap();
    let fields: Vec<_> = errors
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "account_id",
            "amount_cents",
            "currency",
            "idempotency_key",
            "type"
        ]
    );
    let said = |name: &str| {
        errors
            .iter()
            .all(|error| error[name].as_str().is_some_and(|text| !text.is_empty()))
    };
    assert!(said("code") && said("detail"), "{problem}");
    let text = Value::to_string(&problem);
    assert!(!text.contains("i64") && !text.contains("r#"), "{text}");
    api.end().await;
}
