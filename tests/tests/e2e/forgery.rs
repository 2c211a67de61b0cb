//! Who can write to the topic cannot make money, and holds up nobody: the row is the authority, not the
//! message.

use common::types::{EventEnvelope, EventType};
use e2e::{Kind, Payment, Record, Setup, Stack, eventually, test_with};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::operator::{act, announced, assert_is_letter_of, inspect, letters, status};

/// A way of forging: the class and the stage of what becomes of it, and what it makes of a genuine event
/// of a pending transaction and of another account.
type Forgery = (&'static str, &'static str, fn(&mut Record, Uuid));

const FORGERIES: [Forgery; 10] = [
    // An unknown transaction.
    ("mismatch", "compare", |event, _| {
        let stranger = Uuid::now_v7().to_string();
        change(event, "transaction_id", json!(stranger));
        set_header(event, "ce_id", &stranger);
    }),
    // Another account, which exists.
    ("mismatch", "compare", |event, other| {
        change(event, "account_id", json!(other));
        event.key = other.to_string();
    }),
    ("mismatch", "compare", |event, _| {
        change(event, "amount_cents", json!(1_000_000));
    }),
    ("mismatch", "compare", |event, _| {
        change(event, "type", json!("DEBIT"));
    }),
    ("mismatch", "compare", |event, _| {
        change(event, "currency", json!("USD"));
    }),
    ("unknown_schema_version", "decode", |event, _| {
        change(event, "schema_version", json!(99));
    }),
    // Another key than the payload's account.
    ("undecodable", "decode", |event, other| {
        event.key = other.to_string();
    }),
    // The id of another event than the payload's transaction.
    ("undecodable", "decode", |event, _| {
        set_header(event, "ce_id", &Uuid::now_v7().to_string());
    }),
    ("undecodable", "decode", |event, _| {
        event.value = b"\xff{".to_vec();
    }),
    ("undecodable", "decode", |event, _| event.headers.clear()),
];

#[test]
fn each_forged_record_is_a_dead_letter_and_the_genuine_event_is_posted() {
    let setup = Setup {
        partitions: Some(1),
        ..Setup::default()
    };
    test_with(setup, async |stack| {
        let [_, publisher, worker] = stack.start_all().await;
        let client = stack.client().await;
        // The genuine event stays in the outbox, so the forged ones come first.
        publisher.terminate().await;
        let account = client.open_account().await;
        let other = client.open_account().await;
        let payment = Payment::credit(account, 100);
        let id = client.pay(&payment).await.expect(202).id();
        let mut forged = Vec::new();
        for (class, stage, forge) in FORGERIES {
            let mut record = genuine(&payment, id);
            forge(&mut record, other);
            record.offset = stack.kafka.append(&stack.transactions_topic, &record);
            forged.push((class, stage, record));
        }
        let found = letters(&client, "state=DEAD", forged.len()).await;
        assert_eq!(
            status(&client, id).await.0,
            "PENDING",
            "it waits for its own"
        );
        assert_eq!(worker.probe("/ready").await.0, 200);
        for class in ["mismatch", "unknown_schema_version", "undecodable"] {
            let count = forged
                .iter()
                .filter(|(wanted, ..)| *wanted == class)
                .count();
            let labels = [("class", class)];
            worker.counts("dlq_messages_total", &labels, count).await;
        }

        stack.start(Kind::Publisher).await;
        assert_eq!(client.ended(id).await["status"], "PROCESSED");
        for (class, stage, record) in &forged {
            let letter = found
                .iter()
                .find(|letter| letter["source_offset"] == record.offset)
                .expect("a letter for each");
            assert_eq!(
                (&letter["class"], &letter["stage"]),
                (&json!(class), &json!(stage))
            );
            assert_eq!(letter["transaction_id"], Value::Null, "it is nobody's");
            let told = announced(stack, letter, 1).await;
            assert_is_letter_of(&told[0], record, letter);
        }
        comes_back(stack, &client, &found[0]).await;
        // Delivered again, they die no second time.
        worker.terminate().await;
        stack
            .kafka
            .rewind_group(&stack.group, &stack.transactions_topic);
        stack.start(Kind::Worker).await;
        stack
            .kafka
            .group_caught_up(&stack.group, &stack.transactions_topic)
            .await;
        letters(&client, "", forged.len()).await;
        assert_eq!(stack.audit().await.processed(), 1);
    });
}

/// A forged record that somebody replays dies again, as the same letter.
async fn comes_back(stack: &Stack, client: &e2e::Client, letter: &Value) {
    let _sent = act(client, letter, "replay").await.expect(200);
    let again = eventually("it comes back", async || {
        let again = inspect(client, letter).await;
        (again["state"] == "DEAD").then_some(again)
    })
    .await;
    assert_eq!(again["replay_count"], 1);
    let deaths = announced(stack, letter, 2).await;
    assert_eq!(deaths[1].header("dlq.replay_count"), "1");
}

/// The event as the publisher would send it.
fn genuine(payment: &Payment, id: Uuid) -> Record {
    let mut payload = payment.body();
    payload["schema_version"] = 1.into();
    payload["transaction_id"] = id.to_string().into();
    let envelope = EventEnvelope {
        id: common::types::EventId(id),
        event_type: EventType::TransactionCreated,
        time: "2026-11-21T10:00:00.123456Z".parse().expect("a time"),
        account_id: common::types::AccountId(payment.account),
    };
    let headers = envelope.headers();
    Record {
        partition: 0,
        offset: 0,
        key: payment.account.to_string(),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        value: payload.to_string().into_bytes(),
    }
}

fn change(event: &mut Record, field: &str, to: Value) {
    let mut payload = event.json();
    payload[field] = to;
    event.value = payload.to_string().into_bytes();
}

fn set_header(event: &mut Record, name: &str, to: &str) {
    for (header, value) in &mut event.headers {
        if header == name {
            to.clone_into(value);
        }
    }
}
