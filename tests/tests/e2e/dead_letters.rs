//! Events that cannot be applied, from the first failure to the operator's decision.

use e2e::{Kind, Payment, Setup, Stack, Traffic, eventually, test_with};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::operator::{
    act, announced, assert_is_letter_of, attempts, becomes, heal, inspect, letter_of, letters,
    poison, post, prepare_poison, status,
};

/// Retries come quickly, and so often before an event is given up.
pub(crate) fn retries(max: u32, pause_max_ms: u32) -> Setup {
    Setup {
        settings: vec![
            ("RETRIES_MAX", max.to_string()),
            ("RETRY_PAUSE_FIRST_MS", "20".to_owned()),
            ("RETRY_PAUSE_MAX_MS", pause_max_ms.to_string()),
        ],
        ..Setup::default()
    }
}

#[test]
fn a_parked_account_waits_in_order_heals_by_itself_and_holds_up_nobody() {
    test_with(retries(100, 1_000), async |stack| {
        prepare_poison(stack).await;
        let [_, _, worker] = stack.start_all().await;
        let client = stack.client().await;
        let [sick, sound] = [client.open_account().await, client.open_account().await];
        poison(stack, sick, None).await;
        let mut waiting = Vec::new();
        // The last one can be paid only behind both others.
        for payment in [
            Payment::credit(sick, 100),
            Payment::credit(sick, 200),
            Payment::debit(sick, 300),
        ] {
            waiting.push(client.pay(&payment).await.expect(202).id());
        }
        for id in &waiting {
            becomes(&client, *id, ("PROCESSING", None)).await;
        }
        let traffic = Traffic::start(&client, &stack.book, &[sound], 2);
        traffic.flow(40).await;
        let paid = Payment::credit(sound, 1);
        let paid = client.pay(&paid).await.expect(202).id();
        assert_eq!(client.ended(paid).await["status"], "PROCESSED");
        shows_what_is_parked(&worker, 3.0).await;
        assert_eq!(worker.probe("/ready").await.0, 200);

        // The queue is rows: whoever comes next goes on with it.
        worker.terminate().await;
        let before = attempts(stack).await;
        let worker = stack.start(Kind::Worker).await;
        eventually("another worker retries", async || {
            (attempts(stack).await > before).then_some(())
        })
        .await;
        for id in &waiting {
            assert_eq!(status(&client, *id).await, ("PROCESSING".to_owned(), None));
        }
        heal(stack).await;
        for id in &waiting {
            assert_eq!(client.ended(*id).await["status"], "PROCESSED");
        }
        traffic.stop().await;
        let audit = stack.audit().await;
        assert!(audit.snapshot.dead_letters.is_empty());
        let entries = audit.snapshot.entries.iter();
        let posted: Vec<Uuid> = entries
            .filter(|entry| entry.account_id == sick)
            .map(|entry| entry.transaction_id)
            .collect();
        assert_eq!(posted, waiting, "in the order of acceptance");
        shows_what_is_parked(&worker, 0.0).await;
    });
}

async fn shows_what_is_parked(worker: &e2e::Service, events: f64) {
    let created = [("type", "transaction.created")];
    eventually(&format!("{events} parked events, retried"), async || {
        let parked = worker.metric("worker_parked_events").await?;
        let retries = worker.metric_of("worker_retries_total", &created).await?;
        ((parked - events).abs() < f64::EPSILON && retries >= 1.0).then_some(())
    })
    .await;
}

#[test]
fn what_fails_to_the_end_is_a_dead_letter_and_a_replay_posts_it_once() {
    test_with(retries(5, 100), async |stack| {
        prepare_poison(stack).await;
        let [_, _, worker] = stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        poison(stack, account, Some(666)).await;
        let mut ids = Vec::new();
        for amount in [100, 666, 300] {
            let payment = Payment::credit(account, amount);
            ids.push(client.pay(&payment).await.expect(202).id());
        }
        let letter = letter_of(&client, account).await;
        let dead = ids[1];
        assert_eq!(client.ended(ids[0]).await["status"], "PROCESSED");
        assert_eq!(client.ended(ids[2]).await["status"], "PROCESSED");
        becomes(&client, dead, ("PROCESSING", Some("dead_lettered"))).await;
        tells_everything(stack, &client, &letter, dead).await;
        let class = [("class", "retries_exhausted")];
        worker.counts("dlq_messages_total", &class, 1).await;
        let audit = stack.audit_with_dead_letters().await;
        assert_eq!((audit.processed(), audit.dead_lettered()), (2, 1));

        // Nothing is mended: it comes back to its own letter.
        let replayed = act(&client, &letter, "replay").await.expect(200).body;
        assert_eq!(replayed["state"], "REPLAYED");
        let again = eventually("it dies again", async || {
            let again = inspect(&client, &letter).await;
            (again["state"] == "DEAD").then_some(again)
        })
        .await;
        assert_eq!(again["replay_count"], 1);
        let deaths = announced(stack, &letter, 2).await;
        let counts: Vec<_> = deaths
            .iter()
            .map(|record| record.header("dlq.replay_count"))
            .collect();
        assert_eq!(counts, ["0", "1"]);
        becomes(&client, dead, ("PROCESSING", Some("dead_lettered"))).await;

        heal(stack).await;
        let both = tokio::join!(
            act(&client, &letter, "replay"),
            act(&client, &letter, "replay")
        );
        let mut statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "one of two replays it");
        assert_eq!(client.ended(dead).await["status"], "PROCESSED");
        for action in ["replay", "discard"] {
            let late = act(&client, &letter, action).await;
            let _refused = late.expect_problem(409, "dead_letter_not_dead");
        }
        let actions = inspect(&client, &letter).await["actions"].clone();
        let actions = actions.as_array().expect("actions");
        assert_eq!(actions.len(), 2);
        for action in actions {
            assert_eq!(
                (&action["action"], &action["reason"]),
                (&json!("REPLAY"), &json!("a test"))
            );
            let actor = action["actor"].as_str().expect("an actor");
            assert!(actor.starts_with("e2e-"), "{actor}");
        }
        assert_eq!(stack.audit().await.processed(), 3);
    });
}

/// The letter holds what was on the topic, in the api as on the topic of dead letters.
async fn tells_everything(stack: &Stack, client: &e2e::Client, letter: &Value, dead: Uuid) {
    let records = stack.kafka.read(&stack.transactions_topic);
    let original = records
        .iter()
        .find(|record| record.header("ce_id") == dead.to_string())
        .expect("the event is on its topic");
    let shown = inspect(client, letter).await;
    for (field, value) in [
        ("transaction_id", json!(dead)),
        ("event_id", json!(dead)),
        ("state", json!("DEAD")),
        ("class", json!("retries_exhausted")),
        ("stage", json!("apply")),
        ("attempts", json!(6)),
        ("replay_count", json!(0)),
        ("source_topic", json!(stack.transactions_topic)),
        ("source_partition", json!(original.partition)),
        ("source_offset", json!(original.offset)),
        ("key", json!({ "text": original.key })),
        (
            "value",
            json!({ "text": String::from_utf8_lossy(&original.value) }),
        ),
    ] {
        assert_eq!(shown[field], value, "{field} of {shown}");
    }
    let message = shown["message"].as_str().expect("a message");
    assert!(
        message.contains(&format!("poisoned: {dead}")) && message.contains("P0001"),
        "{message}"
    );
    let headers = original
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": { "text": value } }));
    assert_eq!(shown["headers"], headers.collect::<Value>());
    let told = announced(stack, letter, 1).await;
    assert_is_letter_of(&told[0], original, letter);
    assert!(!told[0].header("dlq.first_failed_at").is_empty());
    assert_eq!(told[0].header("dlq.replay_count"), "0");
}

#[test]
fn one_is_discarded_and_many_are_replayed_by_filter_behind_a_dry_run() {
    test_with(retries(1, 50), async |stack| {
        prepare_poison(stack).await;
        stack.start_all().await;
        let client = stack.client().await;
        let mut payments = Vec::new();
        for _ in 0..4 {
            let account = client.open_account().await;
            poison(stack, account, None).await;
            let id = client.pay(&Payment::credit(account, 100)).await;
            payments.push((account, id.expect(202).id()));
        }
        letters(&client, "state=DEAD", 4).await;

        let ((account, discarded), rest) = payments.split_first().expect("four");
        let letter = letter_of(&client, *account).await;
        let _gone = act(&client, &letter, "discard").await.expect(200);
        becomes(&client, *discarded, ("FAILED", Some("discarded"))).await;
        let late = act(&client, &letter, "replay").await;
        let _refused = late.expect_problem(409, "dead_letter_not_dead");

        let path = "/v1/dead-letters/replay";
        let mut order = json!({ "class": "retries_exhausted", "dry_run": true });
        let dry = post(&client, path, &order).await.expect(200).body;
        assert_eq!((&dry["matched"], &dry["replayed"]), (&json!(3), &json!(0)));
        letters(&client, "state=DEAD", 3).await;
        heal(stack).await;
        order["dry_run"] = false.into();
        let blind = post(&client, path, &order).await;
        let _refused = blind.expect_problem(422, "validation_failed");
        order["until"] = dry["until"].clone();
        let done = post(&client, path, &order).await.expect(200).body;
        assert_eq!(
            (&done["replayed"], &done["skipped"]),
            (&json!(3), &json!([]))
        );
        assert_eq!(done["next_cursor"], Value::Null);
        for (_, id) in rest {
            assert_eq!(client.ended(*id).await["status"], "PROCESSED");
        }

        let audit = stack.audit().await;
        assert_eq!((audit.processed(), audit.failed()), (3, 1));
        let results = &audit.snapshot.results;
        let told = results
            .iter()
            .find(|record| record.header("ce_type") == "transaction.failed")
            .expect("an event of the discard")
            .json();
        assert_eq!(told["transaction_id"], discarded.to_string());
        assert_eq!(told["failure_reason"], "discarded");
    });
}

#[test]
fn with_copies_of_rejections_insufficient_funds_arrive_on_the_dead_letter_topic() {
    let setup = Setup {
        settings: vec![("DEAD_LETTER_REJECTIONS", "true".to_owned())],
        ..Setup::default()
    };
    test_with(setup, async |stack| {
        let [_, _, worker] = stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let id = client.pay(&Payment::debit(account, 1)).await;
        let id = id.expect(202).id();
        becomes(&client, id, ("FAILED", Some("insufficient_funds"))).await;
        let letter = letter_of(&client, account).await;
        assert_eq!(letter["class"], "rejected");
        assert_eq!(letter["transaction_id"], id.to_string());
        let told = announced(stack, &letter, 1).await;
        let records = stack.kafka.read(&stack.transactions_topic);
        assert_is_letter_of(&told[0], &records[0], &letter);
        let message = told[0].header("dlq.error.message");
        assert!(message.contains("insufficient_funds"), "{message}");
        let class = [("class", "rejected")];
        worker.counts("dlq_messages_total", &class, 1).await;

        let replay = act(&client, &letter, "replay").await;
        let _refused = replay.expect_problem(409, "transaction_final");
        let everything = json!({ "dry_run": true });
        let dry = post(&client, "/v1/dead-letters/replay", &everything).await;
        assert_eq!(dry.expect(200).body["matched"], 0);
        let _aside = act(&client, &letter, "discard").await.expect(200);
        becomes(&client, id, ("FAILED", Some("insufficient_funds"))).await;
        assert_eq!(stack.audit().await.failed(), 1);
    });
}
