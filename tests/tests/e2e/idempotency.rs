use common::types::TransactionType;
use e2e::{Payment, test};
use futures_util::future::join_all;

#[test]
fn a_key_sent_again_returns_the_original_and_makes_no_event() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let payment = Payment::credit(account, 250);
        let first = client.pay(&payment).await.expect(202);
        assert_eq!(first.header("idempotent-replayed"), "");
        let ended = client.ended(first.id()).await;
        for _ in 0..3 {
            let replay = client.pay(&payment).await.expect(200);
            assert_eq!(replay.header("idempotent-replayed"), "true");
            assert_eq!(replay.body, ended);
        }
        assert_eq!(stack.audit().await.processed(), 1);
        assert_eq!(stack.kafka.events(&stack.transactions_topic).len(), 1);
        assert_eq!(stack.kafka.events(&stack.results_topic).len(), 1);
    });
}

#[test]
fn fifty_requests_at_once_with_one_key_make_one_transaction() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let payment = Payment::credit(account, 250);
        let answers = join_all((0..50).map(|_| client.pay(&payment))).await;
        let created = answers.iter().filter(|answer| answer.status == 202).count();
        let replayed = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!((created, replayed), (1, 49));
        assert!(answers.iter().all(|answer| answer.id() == answers[0].id()));
        assert_eq!(stack.audit().await.processed(), 1);
        assert_eq!(stack.kafka.events(&stack.transactions_topic).len(), 1);
    });
}

#[test]
fn one_key_is_one_payment_for_each_account() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let first = Payment::credit(client.open_account().await, 100);
        let second = Payment {
            account: client.open_account().await,
            ..first.clone()
        };
        let _created = client.pay(&first).await.expect(202);
        let _created = client.pay(&second).await.expect(202);
        assert_eq!(stack.audit().await.processed(), 2);
    });
}

#[test]
fn a_key_used_again_with_other_content_is_refused() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let payment = Payment::credit(account, 250);
        let id = client.pay(&payment).await.expect(202).id();
        let others = [
            Payment {
                amount_cents: 251,
                ..payment.clone()
            },
            Payment {
                kind: TransactionType::Debit,
                ..payment.clone()
            },
            Payment {
                currency: "USD",
                ..payment.clone()
            },
        ];
        for other in &others {
            let _refused = client
                .pay(other)
                .await
                .expect_problem(422, "idempotency_key_reused");
        }
        assert_eq!(client.pay(&payment).await.expect(200).id(), id);
        assert_eq!(stack.audit().await.processed(), 1);
    });
}
