use e2e::{Kind, Setup, Stack, Traffic, eventually, test_with};
use futures_util::future::join_all;

fn with_isolation(isolation: &str) -> Setup {
    Setup {
        partitions: Some(4),
        settings: vec![("WORKER_ISOLATION", isolation.to_owned())],
        ..Setup::default()
    }
}

#[test]
fn two_of_each_share_the_work_and_keep_each_accounts_order_serializable() {
    test_with(with_isolation("serializable"), two_of_each);
}

#[test]
fn two_of_each_share_the_work_and_keep_each_accounts_order_read_committed() {
    test_with(with_isolation("read-committed"), two_of_each);
}

/// Two publishers and two workers, of which one each is killed on the way. That each account keeps
/// its order is the auditor's to say.
async fn two_of_each(stack: &Stack) {
    stack.start_all().await;
    let (publisher, worker) = tokio::join!(stack.start(Kind::Publisher), stack.start(Kind::Worker));
    let client = stack.client().await;
    let accounts = join_all((0..8).map(|_| client.open_account())).await;
    let traffic = Traffic::start(&client, &stack.book, &accounts, 12);
    eventually(
        "the second publisher has its half of the lanes",
        async || {
            let lanes = publisher.metric("outbox_lanes_owned").await;
            lanes
                .is_some_and(|lanes| (31.5..32.5).contains(&lanes))
                .then_some(())
        },
    )
    .await;
    eventually("the second worker works", async || {
        let consumed = worker.metric("events_consumed_total").await;
        consumed.is_some_and(|events| events > 0.0).then_some(())
    })
    .await;
    traffic.flow(200).await;
    tokio::join!(publisher.kill(), worker.kill());
    traffic.flow(200).await;
    traffic.stop().await;
    let audit = stack.audit().await;
    assert!(
        audit.processed() > 0 && audit.failed() > 0,
        "the traffic was no mix"
    );
}
