use e2e::{Kind, Payment, Service, Setup, Stack, Traffic, eventually, test, test_with};
use futures_util::future::join_all;

use crate::{operator::run, systemic::says};

/// Makes new sessions read-only, and ends that; each works in a session that is read-only itself, too.
const READ_ONLY: &str = "BEGIN READ WRITE;
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());
    END $$;
    COMMIT";
const WRITABLE: &str = "BEGIN READ WRITE;
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database());
    END $$;
    COMMIT";

fn behind_proxies() -> Setup {
    Setup {
        proxies: true,
        ..Setup::default()
    }
}

#[test]
fn what_is_unreachable_at_the_start_is_waited_for() {
    test_with(behind_proxies(), async |stack| {
        stack.database_proxy().cut();
        stack.kafka_proxy().cut();
        let services = join_all(Kind::ALL.map(|kind| stack.launch(kind))).await;
        for service in &services {
            assert_eq!(service.probe("/health").await.0, 200);
            says_why(service, "database").await;
        }
        stack.database_proxy().restore();
        services[0].ready().await;
        for service in &services[1..] {
            says_why(service, "broker").await;
        }
        let client = stack.client().await;
        let account = client.open_account().await;
        let id = client
            .pay(&Payment::credit(account, 100))
            .await
            .expect(202)
            .id();
        stack.kafka_proxy().restore();
        join_all(services.iter().map(Service::ready)).await;
        assert_eq!(client.ended(id).await["status"], "PROCESSED");
        stack.audit().await;
    });
}

#[test]
fn an_outage_in_the_middle_of_traffic_loses_nothing() {
    test_with(behind_proxies(), async |stack| {
        let services = stack.start_all().await;
        let client = stack.client().await;
        let accounts = [client.open_account().await, client.open_account().await];
        let traffic = Traffic::start(&client, &stack.book, &accounts, 4);
        traffic.flow(40).await;

        stack.kafka_proxy().cut();
        for service in &services[1..] {
            says_why(service, "broker").await;
        }
        traffic.flow(40).await;
        stack.kafka_proxy().restore();
        join_all(services.iter().map(Service::ready)).await;
        traffic.flow(40).await;

        stack.database_proxy().cut();
        for service in &services {
            says_why(service, "database").await;
        }
        stack.database_proxy().restore();
        join_all(services.iter().map(Service::ready)).await;
        traffic.flow(40).await;
        traffic.stop().await;
        stack.audit().await;
    });
}

#[test]
fn while_the_database_is_away_a_payment_is_answered_503() {
    test_with(behind_proxies(), async |stack| {
        let api = stack.start(Kind::Api).await;
        let client = stack.client().await;
        let payment = Payment::credit(client.open_account().await, 100);
        stack.database_proxy().cut();
        says_why(&api, "database").await;
        let refused = client.pay_once(&payment).await;
        assert!(
            matches!(refused.status.as_u16(), 503 | 504),
            "{}",
            refused.body
        );
        if refused.status == 503 {
            assert!(
                refused
                    .header("retry-after")
                    .parse::<u32>()
                    .is_ok_and(|seconds| seconds >= 1)
            );
        }
        stack.database_proxy().restore();
        stack.start(Kind::Publisher).await;
        stack.start(Kind::Worker).await;
        client.insist(&payment).await;
        assert_eq!(stack.audit().await.processed(), 1);
    });
}

#[test]
fn a_database_that_goes_silent_is_given_up_by_the_worker() {
    test_with(behind_proxies(), async |stack| {
        silent_database(stack, Kind::Worker).await;
    });
}

#[test]
fn a_database_that_goes_silent_is_given_up_by_the_publisher() {
    test_with(behind_proxies(), async |stack| {
        silent_database(stack, Kind::Publisher).await;
    });
}

#[test]
fn a_database_that_goes_silent_is_given_up_by_the_api() {
    test_with(behind_proxies(), async |stack| {
        silent_database(stack, Kind::Api).await;
    });
}

/// As when the database's machine dies and another takes over its address: what was connected hears
/// nothing any more, not even an end. Only one service is cut off, so that the others show it up.
async fn silent_database(stack: &Stack, cut_off: Kind) {
    let mut services = Vec::new();
    for kind in Kind::ALL {
        let through = (kind == cut_off).then(|| stack.database_proxy().address());
        let url = stack.database.url(kind.role(), through);
        services.push(stack.launch_with(kind, &[("DATABASE_URL", &url)]).await);
    }
    join_all(services.iter().map(Service::ready)).await;
    let client = stack.client().await;
    let accounts = [client.open_account().await, client.open_account().await];
    let traffic = Traffic::start(&client, &stack.book, &accounts, 4);
    traffic.flow(40).await;
    stack.database_proxy().swallow();
    for service in services.iter().filter(|service| service.kind() == cut_off) {
        says_why(service, "database").await;
    }
    stack.database_proxy().restore();
    join_all(services.iter().map(Service::ready)).await;
    traffic.flow(40).await;
    traffic.stop().await;
    stack.audit().await;
}

/// A session that was opened meanwhile stays read-only: who kept it would go on only when its life ends.
#[test]
fn services_that_start_on_a_read_only_database_go_on_when_it_takes_writes() {
    test(async |stack| {
        stack.start(Kind::Api).await;
        let client = stack.client().await;
        let payment = Payment::credit(client.open_account().await, 100);
        let id = client.pay(&payment).await.expect(202).id();
        run(stack, READ_ONLY).await;
        let publisher = stack.launch(Kind::Publisher).await;
        let worker = stack.launch(Kind::Worker).await;
        says(&publisher, "read-only transaction").await;
        says(&worker, "read-only transaction").await;
        run(stack, WRITABLE).await;
        assert_eq!(client.ended(id).await["status"], "PROCESSED");
        join_all([publisher.ready(), worker.ready()]).await;
        stack.audit().await;
    });
}

/// Waits until a service says what is missing, and that it is no more than starting.
async fn says_why(service: &Service, component: &str) {
    eventually(
        &format!("{} misses its {component}", service.label()),
        async || {
            let (status, body) = service.probe("/ready").await;
            let reason = body["reasons"][component].as_str()?;
            (status == 503 && reason != "starting").then_some(())
        },
    )
    .await;
}

#[test]
fn a_broker_that_goes_silent_is_given_up_and_nothing_is_lost() {
    test_with(behind_proxies(), async |stack| {
        let services = stack.start_all().await;
        let client = stack.client().await;
        let accounts = [client.open_account().await, client.open_account().await];
        let traffic = Traffic::start(&client, &stack.book, &accounts, 4);
        traffic.flow(40).await;
        stack.kafka_proxy().swallow();
        for service in &services[1..] {
            says_why(service, "broker").await;
        }
        stack.kafka_proxy().restore();
        join_all(services.iter().map(Service::ready)).await;
        traffic.flow(40).await;
        traffic.stop().await;
        stack.audit().await;
    });
}
