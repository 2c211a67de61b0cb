//! Faults of the system, and not of any event: everything stands still, and nothing is given up.

use e2e::{Payment, Service, Stack, Traffic, eventually, test_with};

use crate::{
    dead_letters::retries,
    operator::{attempts, becomes, heal, poison, prepare_poison, run},
};

/// What breaks the worker's statements, what it is complained of with, and what mends it.
const FAULTS: [(&str, &str, &str); 2] = [
    (
        "REVOKE INSERT ON ledger_entries FROM postonce_worker",
        "permission denied for table ledger_entries",
        "GRANT INSERT ON ledger_entries TO postonce_worker",
    ),
    (
        "ALTER TABLE ledger_entries RENAME COLUMN balance_after_cents TO balance",
        "balance_after_cents",
        "ALTER TABLE ledger_entries RENAME COLUMN balance TO balance_after_cents",
    ),
];

#[test]
fn a_revoked_grant_or_a_missing_column_stops_everything_until_it_is_mended() {
    test_with(retries(100, 1_000), async |stack| {
        prepare_poison(stack).await;
        let [_, _, worker] = stack.start_all().await;
        let client = stack.client().await;
        let accounts = [client.open_account().await, client.open_account().await];
        let sick = client.open_account().await;
        poison(stack, sick, None).await;
        let parked = client.pay(&Payment::credit(sick, 100)).await;
        let parked = parked.expect(202).id();
        becomes(&client, parked, ("PROCESSING", None)).await;
        let traffic = Traffic::start(&client, &stack.book, &accounts, 4);
        traffic.flow(40).await;
        for (breaks, complaint, mends) in FAULTS {
            println!("{breaks}");
            run(stack, breaks).await;
            says(&worker, complaint).await;
            worker.counts("worker_standing_still", &[], 1).await;
            counts_nothing(stack, &worker, &traffic).await;
            run(stack, mends).await;
            worker.ready().await;
            let mark = Payment::credit(accounts[0], 1);
            let id = client.pay(&mark).await.expect(202).id();
            client.ended(id).await;
        }
        traffic.stop().await;
        heal(stack).await;
        client.ended(parked).await;
        let audit = stack.audit().await;
        assert!(
            audit.snapshot.dead_letters.is_empty(),
            "nothing is given up"
        );
    });
}

/// Waits until a service is unready and says so.
pub(crate) async fn says(service: &Service, complaint: &str) {
    eventually(complaint, async || {
        let (status, body) = service.probe("/ready").await;
        let told = body["reasons"].to_string().contains(complaint);
        (status == 503 && told).then_some(())
    })
    .await;
}

/// Slices are tried again and again, payments are still accepted, and no event is blamed.
async fn counts_nothing(stack: &Stack, worker: &Service, traffic: &Traffic) {
    let systemic = [("class", "systemic")];
    let tried = async || {
        let tried = worker.metric_of("worker_slice_retries_total", &systemic);
        tried.await.unwrap_or_default()
    };
    let more = async |since: f64, times: f64| {
        eventually("slices are tried again", async || {
            (tried().await >= since + times).then_some(())
        })
        .await;
    };
    more(tried().await, 1.0).await;
    let (before, since) = (attempts(stack).await, tried().await);
    traffic.flow(40).await;
    more(since, 1.0).await;
    assert_eq!(attempts(stack).await, before, "no attempt is counted");
    let parked = "SELECT count(*) FROM parked_events";
    assert_eq!(stack.database.count(parked).await, 1, "nothing is parked");
}
