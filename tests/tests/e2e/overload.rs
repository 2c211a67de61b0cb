use e2e::{Answer, Client, Kind, Payment, Service, Setup, eventually, test_with};
use futures_util::future::join_all;
use uuid::Uuid;

/// Rows that may wait in the intake's queue: as few as can be set.
const QUEUE_ROWS: usize = 1_000;
/// Rows that the only lane takes at once.
const BATCH_ROWS: usize = 100;

fn setup(deadline_ms: u32) -> Setup {
    let settings = [
        ("INTAKE_QUEUE_ROWS_MAX", QUEUE_ROWS.to_string()),
        ("INTAKE_BATCH_ROWS_MAX", BATCH_ROWS.to_string()),
        ("INTAKE_LANES", "1".to_owned()),
        ("INTAKE_DEADLINE_MS", deadline_ms.to_string()),
    ];
    Setup {
        settings: settings.into(),
        ..Setup::default()
    }
}

/// Waits until so many rows wait in the queue.
async fn queue_depth(api: &Service, rows: usize) {
    eventually(&format!("{rows} rows wait"), async || {
        let depth = api.metric("intake_queue_depth").await?;
        (format!("{depth:.0}") == rows.to_string()).then_some(())
    })
    .await;
}

fn credits(account: Uuid, count: usize) -> Vec<Payment> {
    (0..count).map(|_| Payment::credit(account, 1)).collect()
}

#[test]
fn an_overload_is_answered_503_and_nothing_of_it_is_written() {
    test_with(setup(60_000), async |stack| {
        let api = stack.start(Kind::Api).await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let stalled = stack.database.stall().await;
        let first = send(&client, credits(account, BATCH_ROWS));
        stack.database.stalled().await;
        let filling = send(&client, credits(account, QUEUE_ROWS));
        queue_depth(&api, QUEUE_ROWS).await;

        let singles = credits(account, 20);
        for answer in join_all(singles.iter().map(|payment| client.pay(payment))).await {
            assert_overloaded(answer);
        }
        let batch = credits(account, 2);
        assert_overloaded(client.pay_batch(&batch).await);
        stalled.rollback().await.unwrap();

        let (first, filling) = (first.await.unwrap(), filling.await.unwrap());
        for results in [first, filling].map(|answer| answer.expect(207).body["results"].take()) {
            assert!(
                results
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|result| result["status"] == 202)
            );
        }
        let written = stack
            .database
            .count("SELECT count(*) FROM transactions")
            .await;
        assert_eq!(usize::try_from(written), Ok(BATCH_ROWS + QUEUE_ROWS));
        for payment in &singles {
            let _accepted = client.pay(payment).await.expect(202);
        }
        stack.start(Kind::Publisher).await;
        stack.start(Kind::Worker).await;
        stack.audit().await;
    });
}

#[test]
fn a_request_that_waits_too_long_is_told_whether_its_outcome_is_known() {
    test_with(setup(3_000), async |stack| {
        let api = stack.start(Kind::Api).await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let stalled = stack.database.stall().await;
        let taken = Payment::credit(account, 1);
        let waiting = Payment::credit(account, 2);
        let sent = tokio::spawn({
            let (client, taken) = (client.clone(), taken.clone());
            async move { client.pay_once(&taken).await }
        });
        stack.database.stalled().await;
        let refused = client.pay_once(&waiting).await;
        assert_eq!(
            refused.status, 503,
            "never taken, so not written: {}",
            refused.body
        );
        let _unknown = sent.await.unwrap().expect_problem(504, "outcome_unknown");
        stalled.rollback().await.unwrap();

        queue_depth(&api, 0).await;
        client.insist(&taken).await;
        let _never_written = client.pay(&waiting).await.expect(202);
        stack.start(Kind::Publisher).await;
        stack.start(Kind::Worker).await;
        assert_eq!(stack.audit().await.processed(), 2);
    });
}

fn send(client: &Client, payments: Vec<Payment>) -> tokio::task::JoinHandle<Answer> {
    let client = client.clone();
    tokio::spawn(async move { client.pay_batch(&payments).await })
}

fn assert_overloaded(answer: Answer) {
    let retry_after: u32 = answer
        .header("retry-after")
        .parse()
        .expect("no Retry-After");
    assert!(retry_after >= 1);
    let _overloaded = answer.expect_problem(503, "overloaded");
}
