//! A record that the broker does not take.

use e2e::{Kind, Payment, Setup, eventually, test_with};
use uuid::Uuid;

use crate::operator::{act, announced, becomes, inspect, letter_of};

const LIMIT: &str = "max.message.bytes";

/// The events of Postonce are small, so this one is made large where it waits.
#[test]
fn a_record_too_large_for_its_topic_is_a_dead_letter_and_its_lane_goes_on() {
    let setup = Setup {
        partitions: Some(1),
        ..Setup::default()
    };
    test_with(setup, async |stack| {
        let [_, publisher, _] = stack.start_all().await;
        let client = stack.client().await;
        publisher.terminate().await;
        let topic = &*stack.transactions_topic;
        stack.kafka.set_topic(topic, LIMIT, "4000").await;
        let account = client.open_account().await;
        let mut ids = Vec::new();
        for amount in [100, 200, 300] {
            let payment = Payment::credit(account, amount);
            ids.push(client.pay(&payment).await.expect(202).id());
        }
        let large = ids[1];
        grow(stack, large).await;
        let publisher = stack.start(Kind::Publisher).await;
        for id in [ids[0], ids[2]] {
            assert_eq!(client.ended(id).await["status"], "PROCESSED");
        }
        becomes(&client, large, ("PROCESSING", Some("dead_lettered"))).await;
        let letter = letter_of(&client, account).await;
        assert_eq!(letter["class"], "refused_by_broker");
        assert_eq!(letter["stage"], "publish");
        assert_eq!(letter["transaction_id"], large.to_string());
        let class = [("class", "refused_by_broker")];
        publisher.counts("dlq_messages_total", &class, 1).await;
        assert_eq!(publisher.probe("/ready").await.0, 200);
        // What was too large for one topic is too large for the other one.
        let told = announced(stack, &letter, 1).await;
        assert_eq!(told[0].header("dlq.truncated"), "true");
        assert_eq!(told[0].header("ce_id"), large.to_string());
        assert!(told[0].value.is_empty());
        let audit = stack.audit_with_dead_letters().await;
        assert_eq!((audit.processed(), audit.dead_lettered()), (2, 1));

        let _sent = act(&client, &letter, "replay").await.expect(200);
        eventually("it is refused again", async || {
            let again = inspect(&client, &letter).await;
            let back = again["state"] == "DEAD" && again["replay_count"] == 1;
            back.then_some(())
        })
        .await;
        publisher.terminate().await;
        stack.kafka.set_topic(topic, LIMIT, "1048588").await;
        stack.start(Kind::Publisher).await;
        let _sent = act(&client, &letter, "replay").await.expect(200);
        assert_eq!(client.ended(large).await["status"], "PROCESSED");
        assert_eq!(stack.audit().await.processed(), 3);
    });
}

/// Fills an event that waits for the publisher with what no compression makes small.
async fn grow(stack: &e2e::Stack, event: Uuid) {
    let noise: String = std::iter::repeat_with(|| Uuid::new_v4().simple().to_string())
        .take(300)
        .collect();
    let grown = sqlx::query(
        "UPDATE outbox_events
            SET payload = (payload::jsonb || jsonb_build_object('noise', $2::text))::json
          WHERE event_id = $1",
    )
    .bind(event)
    .bind(noise)
    .execute(stack.database.superuser())
    .await
    .expect("the event cannot be changed");
    assert_eq!(grown.rows_affected(), 1);
}
