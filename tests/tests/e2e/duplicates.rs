use std::collections::HashSet;

use e2e::{Audit, Kind, Setup, Traffic, eventually, test, test_with};

#[test]
fn every_event_delivered_again_changes_nothing() {
    test(async |stack| {
        let [_, _, worker] = stack.start_all().await;
        let client = stack.client().await;
        let accounts = [client.open_account().await, client.open_account().await];
        let traffic = Traffic::start(&client, &stack.book, &accounts, 4);
        traffic.flow(100).await;
        traffic.stop().await;
        let before = stack.audit().await;

        worker.terminate().await;
        stack
            .kafka
            .rewind_group(&stack.group, &stack.transactions_topic);
        let worker = stack.start(Kind::Worker).await;
        stack
            .kafka
            .group_caught_up(&stack.group, &stack.transactions_topic)
            .await;
        let consumed = worker.metric("events_consumed_total").await;
        assert!(
            consumed.is_some_and(|events| events >= 100.0),
            "{consumed:?} came again"
        );

        let after = stack.audit().await;
        assert_eq!(after.processed(), before.processed());
        assert_eq!(result_ids(&after), result_ids(&before));
    });
}

#[test]
fn an_event_published_again_changes_nothing() {
    let kept = Setup {
        settings: vec![("OUTBOX_RETENTION", "1h".to_owned())],
        ..Setup::default()
    };
    test_with(kept, async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let accounts = [client.open_account().await];
        let traffic = Traffic::start(&client, &stack.book, &accounts, 2);
        traffic.flow(30).await;
        traffic.stop().await;
        let before = stack.audit().await;
        let sent = stack.kafka.read(&stack.transactions_topic).len();

        // As after a crash between the broker's acknowledgement and the mark.
        sqlx::query("UPDATE outbox_events SET status = 'PENDING', published_at = NULL")
            .execute(stack.database.superuser())
            .await
            .unwrap();
        eventually("every event is sent again", async || {
            let again = stack.kafka.read(&stack.transactions_topic).len();
            (again >= 2 * sent).then_some(())
        })
        .await;
        stack
            .kafka
            .group_caught_up(&stack.group, &stack.transactions_topic)
            .await;
        let after = stack.audit().await;
        assert_eq!(after.processed(), before.processed());
        assert_eq!(result_ids(&after), result_ids(&before));
    });
}

fn result_ids(audit: &Audit) -> HashSet<String> {
    let results = audit.snapshot.results.iter();
    results
        .map(|record| record.header("ce_id").to_owned())
        .collect()
}
