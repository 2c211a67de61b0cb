use e2e::{Payment, Record, test};
use serde_json::{Value, json};
use uuid::Uuid;

#[test]
fn a_payment_travels_from_the_request_to_the_ledger_and_both_topics() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let payment = Payment::credit(account, 1999);

        let accepted = client.pay(&payment).await.expect(202);
        let id = accepted.id();
        assert_eq!(
            accepted.header("location"),
            format!("/v1/transactions/{id}")
        );
        assert_eq!(accepted.body["status"], "PENDING");

        let ended = client.ended(id).await;
        let expected = json!({
            "id": id, "account_id": account, "amount_cents": 1999, "currency": "EUR",
            "type": "CREDIT", "status": "PROCESSED", "idempotency_key": payment.key,
            "failure_reason": null, "created_at": ended["created_at"],
            "processed_at": ended["processed_at"],
        });
        assert_eq!(ended, expected);
        assert!(ended["processed_at"].is_string());

        let balance = client
            .get(&format!("/v1/accounts/{account}"))
            .await
            .expect(200);
        assert_eq!(balance.body["balance_cents"], 1999);
        let statement = client
            .get(&format!("/v1/accounts/{account}/entries"))
            .await
            .expect(200);
        let entry = &statement.body["data"][0];
        assert_eq!(entry["entry_no"], 1);
        assert_eq!(entry["amount_cents"], 1999);
        assert_eq!(entry["balance_after_cents"], 1999);
        assert_eq!(entry["transaction_id"], id.to_string());

        let audit = stack.audit().await;
        assert_eq!((audit.processed(), audit.failed()), (1, 0));
        let created = stack.kafka.events(&stack.transactions_topic);
        let [created] = &*created else {
            panic!("one event was expected: {created:?}")
        };
        assert_event(created, "transaction.created", account);
        assert_eq!(created.header("ce_id"), id.to_string());
        assert_eq!(created.json(), payload(id, &payment));
        let results = stack.kafka.events(&stack.results_topic);
        let [processed] = &*results else {
            panic!("one result was expected: {results:?}")
        };
        assert_event(processed, "transaction.processed", account);
        let mut expected = payload(id, &payment);
        expected["entry_no"] = 1.into();
        expected["balance_after_cents"] = 1999.into();
        assert_eq!(processed.json(), expected);
    });
}

fn payload(id: Uuid, payment: &Payment) -> Value {
    let mut payload = payment.body();
    payload["schema_version"] = 1.into();
    payload["transaction_id"] = id.to_string().into();
    payload
}

/// The headers of section 7, and the key.
fn assert_event(record: &Record, event_type: &str, account: Uuid) {
    assert_eq!(record.key, account.to_string());
    assert_eq!(record.header("ce_type"), event_type);
    assert_eq!(record.header("ce_source"), "/postonce");
    assert_eq!(record.header("ce_specversion"), "1.0");
    assert_eq!(record.header("content-type"), "application/json");
    assert!(
        Uuid::try_parse(record.header("ce_id")).is_ok(),
        "{record:?}"
    );
    let time = record.header("ce_time");
    assert!(
        time.starts_with("20") && time.ends_with('Z'),
        "not RFC 3339 in UTC: {time}"
    );
}
