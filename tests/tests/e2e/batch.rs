use e2e::{Payment, test};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

#[test]
fn a_batch_answers_each_item_for_itself() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let good = Payment::credit(account, 500);
        let items = [
            good.clone(),
            good.clone(),
            Payment::credit(account, 0),
            Payment::credit(Uuid::new_v4(), 100),
            Payment {
                amount_cents: 501,
                ..good.clone()
            },
            Payment {
                currency: "USD",
                ..Payment::credit(account, 100)
            },
            Payment::debit(account, 200),
        ];
        let expected = [
            (202, None),
            (200, None),
            (422, Some("validation_failed")),
            (404, Some("account_not_found")),
            (422, Some("idempotency_key_reused")),
            (422, Some("currency_mismatch")),
            (202, None),
        ];
        let answer = client.pay_batch(&items).await.expect(207);
        let results = answer.body["results"].as_array().expect("no results");
        assert_eq!(results.len(), items.len());
        for (index, (result, (status, code))) in results.iter().zip(expected).enumerate() {
            assert_eq!(result["index"], index);
            assert_eq!(result["status"], status, "{result}");
            assert_eq!(result["problem"]["code"].as_str(), code, "{result}");
            assert_eq!(
                result["transaction"].is_object(),
                code.is_none(),
                "{result}"
            );
        }
        assert_eq!(
            results[0]["transaction"]["id"],
            results[1]["transaction"]["id"]
        );

        let again = client
            .pay_batch(&[items[0].clone(), items[6].clone()])
            .await
            .expect(207);
        for (result, first) in again.body["results"].as_array().unwrap().iter().zip([0, 6]) {
            assert_eq!(result["status"], 200);
            assert_eq!(
                result["transaction"]["id"],
                results[first]["transaction"]["id"]
            );
        }
        assert_eq!(stack.audit().await.processed(), 2);
    });
}

#[test]
fn the_items_of_an_account_are_posted_in_their_order() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let accounts = [client.open_account().await, client.open_account().await];
        let amounts = 1..=200_i64;
        let items: Vec<_> = amounts
            .clone()
            .flat_map(|n| accounts.map(|a| Payment::credit(a, n)))
            .collect();
        let _answer = client.pay_batch(&items).await.expect(207);
        let audit = stack.audit().await;
        for account in accounts {
            let entries = audit
                .snapshot
                .entries
                .iter()
                .filter(|entry| entry.account_id == account);
            let posted: Vec<_> = entries.map(|entry| entry.amount_cents).collect();
            assert_eq!(posted, amounts.clone().collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_batch_takes_no_key_of_its_own() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let request = client
            .request(Method::POST, "/v1/transactions/batch")
            .header("Idempotency-Key", "k")
            .json(&json!({ "transactions": [Payment::credit(account, 1).item()] }));
        let refused = client.send(request).await.unwrap();
        let _refused = refused.expect_problem(400, "idempotency_key_on_batch");
        stack.audit().await;
    });
}
