//! What is readable and nevertheless not posted.

use e2e::{Kind, Payment, test};
use uuid::Uuid;

#[test]
fn a_debit_beyond_the_balance_ends_failed_with_its_reason_and_an_event() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let funded = client
            .pay(&Payment::credit(account, 500))
            .await
            .expect(202)
            .id();
        let too_much = client
            .pay(&Payment::debit(account, 501))
            .await
            .expect(202)
            .id();
        let all_of_it = client
            .pay(&Payment::debit(account, 500))
            .await
            .expect(202)
            .id();

        assert_eq!(client.ended(funded).await["status"], "PROCESSED");
        let failed = client.ended(too_much).await;
        assert_eq!(failed["status"], "FAILED");
        assert_eq!(failed["failure_reason"], "insufficient_funds");
        assert_eq!(client.ended(all_of_it).await["status"], "PROCESSED");

        let audit = stack.audit().await;
        let told = audit
            .snapshot
            .results
            .iter()
            .find(|r| r.header("ce_type") == "transaction.failed");
        let told = told.expect("no event of the refusal").json();
        assert_eq!(told["transaction_id"], too_much.to_string());
        assert_eq!(told["failure_reason"], "insufficient_funds");
    });
}

#[test]
fn another_currency_than_the_accounts_is_refused_and_does_not_burn_the_key() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let dollars = Payment {
            currency: "USD",
            ..Payment::credit(account, 100)
        };
        let _refused = client
            .pay(&dollars)
            .await
            .expect_problem(422, "currency_mismatch");
        let euros = Payment {
            currency: "EUR",
            ..dollars
        };
        let _accepted = client.pay(&euros).await.expect(202);
        assert_eq!(stack.audit().await.processed(), 1);
    });
}

#[test]
fn an_unknown_account_is_refused() {
    test(async |stack| {
        stack.start(Kind::Api).await;
        let client = stack.client().await;
        let stranger = Payment::credit(Uuid::new_v4(), 100);
        let _refused = client
            .pay(&stranger)
            .await
            .expect_problem(404, "account_not_found");
        stack.audit().await;
    });
}

#[test]
fn a_suspended_account_refuses_new_payments_and_still_answers_replays() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let before = Payment::credit(account, 100);
        let id = client.pay(&before).await.expect(202).id();
        client.ended(id).await;
        client.set_account_status(account, "SUSPENDED").await;

        let during = [Payment::credit(account, 1), Payment::debit(account, 1)];
        for payment in &during {
            let _refused = client
                .pay(payment)
                .await
                .expect_problem(409, "account_suspended");
        }
        let replay = client.pay(&before).await.expect(200);
        assert_eq!(replay.header("idempotent-replayed"), "true");
        assert_eq!(
            (replay.id(), &replay.body["status"]),
            (id, &"PROCESSED".into())
        );

        client.set_account_status(account, "ACTIVE").await;
        for payment in &during {
            let _accepted = client.pay(payment).await.expect(202);
        }
        assert_eq!(stack.audit().await.processed(), 3);
    });
}

#[test]
fn a_payment_whose_account_is_suspended_before_its_turn_ends_failed() {
    test(async |stack| {
        stack.start(Kind::Api).await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let id = client
            .pay(&Payment::credit(account, 100))
            .await
            .expect(202)
            .id();
        client.set_account_status(account, "SUSPENDED").await;
        stack.start(Kind::Publisher).await;
        stack.start(Kind::Worker).await;
        let ended = client.ended(id).await;
        assert_eq!(ended["status"], "FAILED");
        assert_eq!(ended["failure_reason"], "account_suspended");
        stack.audit().await;
    });
}
