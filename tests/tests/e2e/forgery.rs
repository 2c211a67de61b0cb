//! Who can write to the topic cannot make money: the row is the authority, not the message.

use common::types::{EventEnvelope, EventType};
use e2e::{Client, Kind, Payment, Record, Service, Setup, Stack, eventually, test_with};
use serde_json::{Value, json};
use uuid::Uuid;

/// A way of forging, and what it makes of a genuine event of a pending transaction and of another
/// account.
type Forgery = (&'static str, fn(&mut Record, Uuid));

const FORGERIES: [Forgery; 9] = [
    ("an unknown transaction", |event, _| {
        let stranger = Uuid::now_v7().to_string();
        change(event, "transaction_id", json!(stranger));
        set_header(event, "ce_id", &stranger);
    }),
    ("another amount", |event, _| {
        change(event, "amount_cents", json!(1_000_000));
    }),
    ("another account", |event, other| {
        change(event, "account_id", json!(other));
        event.key = other.to_string();
    }),
    ("another key than the payload's account", |event, other| {
        event.key = other.to_string();
    }),
    ("another type", |event, _| {
        change(event, "type", json!("DEBIT"));
    }),
    ("another currency", |event, _| {
        change(event, "currency", json!("USD"));
    }),
    ("an unknown version", |event, _| {
        change(event, "schema_version", json!(99));
    }),
    ("no JSON", |event, _| event.value = b"\xff{".to_vec()),
    ("no headers", |event, _| event.headers.clear()),
];

#[test]
fn a_forged_event_stops_the_worker_and_makes_no_money() {
    let setup = Setup {
        partitions: Some(1),
        ..Setup::default()
    };
    test_with(setup, async |stack| {
        let [_, publisher, worker] = stack.start_all().await;
        let client = stack.client().await;
        // The genuine event stays in the outbox, so the forged one comes first.
        publisher.terminate().await;
        let account = client.open_account().await;
        let payment = Payment::credit(account, 100);
        let id = client.pay(&payment).await.expect(202).id();
        let scene = Scene {
            stack,
            client,
            id,
            payment,
            other: stack.client().await.open_account().await,
        };
        let mut worker = worker;
        for forgery in FORGERIES {
            worker = scene.forge(forgery, worker).await;
        }
        stack.start(Kind::Publisher).await;
        assert_eq!(scene.client.ended(id).await["status"], "PROCESSED");
        assert_eq!(stack.audit().await.processed(), 1);
    });
}

/// What stands on the stage for each forgery.
struct Scene<'a> {
    stack: &'a Stack,
    client: Client,
    id: Uuid,
    payment: Payment,
    other: Uuid,
}

impl Scene<'_> {
    /// Lets a worker meet a forged event, and hands over the one that goes on after an operator has
    /// looked at it.
    async fn forge(&self, (what, forge): Forgery, worker: Service) -> Service {
        println!("forged: {what}");
        let (kafka, topic) = (&self.stack.kafka, &self.stack.transactions_topic);
        let mut event = self.genuine();
        forge(&mut event, self.other);
        let offset = kafka.append(topic, &event);
        self.assert_stopped(&worker).await;
        worker.terminate().await;
        if what == "another amount" {
            // Starting it again heals nothing.
            let again = self.stack.launch(Kind::Worker).await;
            self.assert_stopped(&again).await;
            again.terminate().await;
        }
        kafka.seek_group(&self.stack.group, topic, 0, offset + 1);
        self.stack.start(Kind::Worker).await
    }

    /// The worker says which event it stands before, and has posted nothing.
    async fn assert_stopped(&self, worker: &Service) {
        let reason = eventually("the worker says why it stopped", async || {
            let reasons = worker.unready().await;
            let reasons = reasons.to_string();
            reasons
                .contains(&self.stack.transactions_topic)
                .then_some(reasons)
        })
        .await;
        println!("unready: {reason}");
        let pending = self
            .client
            .get(&format!("/v1/transactions/{}", self.id))
            .await
            .expect(200);
        assert_eq!(pending.body["status"], "PENDING");
        let entries = self
            .stack
            .database
            .count("SELECT count(*) FROM ledger_entries")
            .await;
        assert_eq!(entries, 0);
    }

    /// The event as the publisher would send it.
    fn genuine(&self) -> Record {
        let mut payload = self.payment.body();
        payload["schema_version"] = 1.into();
        payload["transaction_id"] = self.id.to_string().into();
        let envelope = EventEnvelope {
            id: common::types::EventId(self.id),
            event_type: EventType::TransactionCreated,
            time: "2026-11-21T10:00:00.123456Z".parse().expect("a time"),
            account_id: common::types::AccountId(self.payment.account),
        };
        let headers = envelope.headers();
        Record {
            partition: 0,
            offset: 0,
            key: self.payment.account.to_string(),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            value: payload.to_string().into_bytes(),
        }
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
