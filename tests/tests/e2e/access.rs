use std::time::{Duration, Instant};

use e2e::{Kind, Payment, eventually, test};
use reqwest::Method;
use serde_json::json;

/// A revocation is in force within 10 s; the rest is for this machine's other work.
const REVOCATION_MAX: Duration = Duration::from_secs(30);

#[test]
fn without_a_valid_key_nothing_is_answered_and_nothing_written() {
    test(async |stack| {
        stack.start(Kind::Api).await;
        let account = stack.client().await.open_account().await;
        let unknown = format!("po_{}", "A".repeat(43));
        for key in [None, Some("nonsense".to_owned()), Some(unknown)] {
            let stranger = stack.client_of(key);
            let payment = Payment::credit(account, 100);
            let refused = stranger
                .pay(&payment)
                .await
                .expect_problem(401, "unauthorized");
            assert!(refused.header("www-authenticate").starts_with("Bearer"));
            let listing = stranger.get("/v1/accounts").await;
            let _refused = listing.expect_problem(401, "unauthorized");
        }
        stack.audit().await;
    });
}

#[test]
fn a_key_may_do_what_its_scopes_say_and_no_more() {
    test(async |stack| {
        stack.start(Kind::Api).await;
        let account = stack.client().await.open_account().await;
        let reader = stack.client_with("read").await;
        let writer = stack.client_with("write").await;
        let path = format!("/v1/accounts/{account}");

        let _read = reader.get(&path).await.expect(200);
        let _refused = writer.get(&path).await.expect_problem(403, "missing_scope");
        let payment = Payment::credit(account, 100);
        let _refused = reader
            .pay(&payment)
            .await
            .expect_problem(403, "missing_scope");
        let _accepted = writer.pay(&payment).await.expect(202);
        for client in [&reader, &writer] {
            let suspend = client
                .request(Method::PATCH, &path)
                .json(&json!({ "status": "SUSPENDED" }));
            let refused = client.send(suspend).await.expect("the connection broke");
            let _refused = refused.expect_problem(403, "missing_scope");
        }
        stack.start(Kind::Publisher).await;
        stack.start(Kind::Worker).await;
        stack.audit().await;
    });
}

#[test]
fn a_revoked_key_is_refused_within_ten_seconds() {
    test(async |stack| {
        stack.start(Kind::Api).await;
        let (name, key) = stack.make_key("read").await;
        let client = stack.client_of(Some(key));
        let _answered = client.get("/v1/accounts").await.expect(200);
        stack
            .operator_runs(&["keys", "revoke", "--name", &name])
            .await;
        let revoked = Instant::now();
        eventually("the revocation is in force", async || {
            (client.get("/v1/accounts").await.status == 401).then_some(())
        })
        .await;
        assert!(
            revoked.elapsed() < REVOCATION_MAX,
            "{:?}",
            revoked.elapsed()
        );
    });
}
