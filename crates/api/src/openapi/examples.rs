//! The examples of the OpenAPI document: one account, and what happens to it.

use serde_json::{Value, json};

use crate::problem::Code;

pub(crate) const ACCOUNT_ID: &str = "01920f4e-6c00-7000-8000-000000000001";
pub(crate) const TRANSACTION_ID: &str = "01920f4e-7d00-7000-8000-000000000002";
pub(crate) const DEAD_LETTER_ID: &str = "01920f4e-8e00-7000-8000-000000000004";
const REQUEST_ID: &str = "01920f4e-7d00-7000-8000-000000000003";
pub(crate) const CURSOR: &str = "AZIPTn0AcACAAAAAAAAAAn3tFd1r0mXW";

pub(crate) fn account() -> Value {
    json!({
        "id": ACCOUNT_ID, "currency": "EUR", "balance_cents": 12_500, "status": "ACTIVE",
        "entry_count": 3, "created_at": "2026-11-21T10:00:00.000000Z",
        "updated_at": "2026-11-21T10:05:00.123456Z"
    })
}

pub(crate) fn new_account() -> Value {
    json!({
        "id": ACCOUNT_ID, "currency": "EUR", "balance_cents": 0, "status": "ACTIVE",
        "entry_count": 0, "created_at": "2026-11-21T10:00:00.000000Z",
        "updated_at": "2026-11-21T10:00:00.000000Z"
    })
}

pub(crate) fn entry() -> Value {
    json!({
        "entry_no": 3, "amount_cents": -500, "balance_after_cents": 12_500,
        "transaction_id": TRANSACTION_ID, "created_at": "2026-11-21T10:05:00.123456Z"
    })
}

pub(crate) fn instruction() -> Value {
    json!({ "account_id": ACCOUNT_ID, "amount_cents": 500, "currency": "EUR", "type": "DEBIT" })
}

pub(crate) fn item() -> Value {
    let mut item = instruction();
    item["idempotency_key"] = "order-4711".into();
    item
}

pub(crate) fn pending() -> Value {
    let mut transaction = processed();
    transaction["status"] = "PENDING".into();
    transaction["processed_at"] = Value::Null;
    transaction
}

pub(crate) fn processed() -> Value {
    json!({
        "id": TRANSACTION_ID, "account_id": ACCOUNT_ID, "amount_cents": 500, "currency": "EUR",
        "type": "DEBIT", "status": "PROCESSED", "idempotency_key": "order-4711",
        "failure_reason": null, "created_at": "2026-11-21T10:05:00.118200Z",
        "processed_at": "2026-11-21T10:05:00.123456Z"
    })
}

pub(crate) fn batch_results() -> Value {
    json!({ "results": [
        { "index": 0, "status": 202, "transaction": pending() },
        { "index": 1, "status": 404, "problem": problem(Code::AccountNotFound) }
    ] })
}

/// What became of the payment above where it could not be posted.
pub(crate) fn letter() -> Value {
    json!({
        "id": DEAD_LETTER_ID, "account_id": ACCOUNT_ID, "event_id": TRANSACTION_ID,
        "transaction_id": TRANSACTION_ID, "state": "DEAD", "class": "retries_exhausted", "stage": "apply",
        "message": "P0001: the ledger is closed for this account", "attempts": 6, "replay_count": 0,
        "source_topic": "transactions", "source_partition": 3, "source_offset": 4711,
        "recorded_at": "2026-11-21T10:05:00.120000Z", "first_failed_at": "2026-11-21T10:05:00.123456Z",
        "dead_at": "2026-11-21T10:05:06.654321Z"
    })
}

pub(crate) fn replayed_letter() -> Value {
    let mut letter = letter();
    letter["state"] = "REPLAYED".into();
    letter
}

pub(crate) fn discarded_letter() -> Value {
    let mut letter = letter();
    letter["state"] = "DISCARDED".into();
    letter
}

pub(crate) fn letter_detail() -> Value {
    let mut letter = replayed_letter();
    letter["key"] = json!({ "text": ACCOUNT_ID });
    letter["value"] = json!({ "text": format!(
        "{{\"schema_version\":1,\"transaction_id\":\"{TRANSACTION_ID}\",\"account_id\":\"{ACCOUNT_ID}\",\
         \"amount_cents\":500,\"currency\":\"EUR\",\"type\":\"DEBIT\"}}"
    ) });
    letter["headers"] = json!([
        { "name": "ce_id", "value": { "text": TRANSACTION_ID } },
        { "name": "ce_type", "value": { "text": "transaction.created" } }
    ]);
    letter["actions"] = json!([{
        "action": "REPLAY", "actor": "on-call", "reason": "the ledger's trigger was mended",
        "request_id": REQUEST_ID, "at": "2026-11-21T11:00:00.000000Z"
    }]);
    letter
}

pub(crate) fn dry_run() -> Value {
    json!({
        "dry_run": true, "matched": 1, "matched_is_capped": false, "sample": [letter()],
        "until": CURSOR, "replayed": 0, "skipped": [], "next_cursor": null
    })
}

pub(crate) fn page(row: &Value) -> Value {
    json!({ "data": [row], "next_cursor": CURSOR })
}

pub(super) fn problem(code: Code) -> Value {
    let mut problem = json!({
        "type": code.type_uri(), "title": code.title(), "status": code.status().as_u16(),
        "detail": code.usual_detail(), "code": code.as_str(), "request_id": REQUEST_ID
    });
    if let Some((field, rule, detail)) = field(code) {
        problem["errors"] = json!([{ "field": field, "code": rule, "detail": detail }]);
    }
    problem
}

const fn field(code: Code) -> Option<(&'static str, &'static str, &'static str)> {
    match code {
        Code::InvalidBody => Some(("colour", "unknown_field", "is not a field of this body")),
        Code::InvalidQuery => Some((
            "limit",
            "invalid_value",
            "must be a whole number from 1 to 200",
        )),
        Code::InvalidPath => Some(("id", "invalid_uuid", crate::rules::UUID_RULE)),
        Code::ValidationFailed => Some((
            "currency",
            "unknown_currency",
            "must be an ISO 4217 currency code in capitals, such as EUR",
        )),
        _ => None,
    }
}
