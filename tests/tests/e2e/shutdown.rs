use e2e::{Kind, Payment, Service, Stack, Traffic, eventually, test};
use tokio::net::TcpStream;

#[test]
fn a_request_under_way_is_answered_before_the_api_ends() {
    test(async |stack| {
        let api = stack.start(Kind::Api).await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let payment = Payment::credit(account, 100);

        let stall = stack.database.stall().await;
        let answer = tokio::spawn({
            let (client, payment) = (client.clone(), payment.clone());
            async move { client.pay_once(&payment).await }
        });
        stack.database.stalled().await;
        api.signal("TERM").await;
        eventually("the api takes no more", async || {
            TcpStream::connect(stack.api.get())
                .await
                .is_err()
                .then_some(())
        })
        .await;
        stall.rollback().await.unwrap();
        let _accepted = answer.await.unwrap().expect(202);
        assert_eq!(api.ended().await.code(), Some(0));

        stack.start_all().await;
        assert_eq!(stack.audit().await.processed(), 1);
    });
}

/// Nothing can be written to the table that a service needs, so it cannot finish what it began.
#[test]
fn a_second_signal_ends_a_service_at_once_and_loses_nothing() {
    test(async |stack| {
        let services = stack.start_all().await;
        let client = stack.client().await;
        let accounts = [client.open_account().await, client.open_account().await];
        let traffic = Traffic::start(&client, &stack.book, &accounts, 4);
        for service in services {
            traffic.flow(20).await;
            signal_twice(stack, &service).await;
            let log = service.log();
            let told = log.iter().any(|line| line.contains("a second signal"));
            assert!(told, "{} does not say why it ended", service.label());
            stack.start(service.kind()).await;
        }
        traffic.flow(20).await;
        traffic.stop().await;
        stack.audit().await;
    });
}

async fn signal_twice(stack: &Stack, service: &Service) {
    let lock = stack.database.superuser().begin().await;
    let mut lock = lock.expect("no transaction");
    // The worker is brought events meanwhile, so the outbox has to go on.
    let statement = match service.kind() {
        Kind::Worker => "LOCK TABLE ledger_entries IN ACCESS EXCLUSIVE MODE",
        Kind::Api | Kind::Publisher => "LOCK TABLE outbox_events IN ACCESS EXCLUSIVE MODE",
    };
    sqlx::raw_sql(statement)
        .execute(&mut *lock)
        .await
        .expect("no lock");
    eventually("it waits in the middle of its work", async || {
        let waiting = "SELECT count(*) > 0 FROM pg_stat_activity
                        WHERE usename = $1 AND datname = current_database()
                          AND wait_event_type = 'Lock'";
        let waiting = sqlx::query_scalar::<_, bool>(waiting).bind(service.kind().role().name());
        let waiting = waiting.fetch_one(stack.database.superuser()).await;
        waiting.expect("a count failed").then_some(())
    })
    .await;
    service.signal("TERM").await;
    eventually("it drains", async || {
        let log = service.log();
        log.iter()
            .any(|line| line.contains("shutting down"))
            .then_some(())
    })
    .await;
    service.signal("TERM").await;
    let status = service.ended().await;
    lock.rollback().await.expect("no rollback");
    assert_eq!(status.code(), Some(128 + 15), "{}", service.label());
}
