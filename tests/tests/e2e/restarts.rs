use e2e::{Kind, Service, Stack, Traffic, test};

/// Payments that flow before and after each interruption.
const PAYMENTS: usize = 40;

#[test]
fn each_service_may_be_restarted_in_the_middle_of_traffic() {
    test(async |stack| {
        interrupt_each(stack, async |service| service.terminate().await).await;
    });
}

#[test]
fn each_service_may_be_killed_in_the_middle_of_traffic() {
    test(async |stack| {
        interrupt_each(stack, async |service| service.kill().await).await;
    });
}

/// Nothing acknowledged is lost and nothing posted twice: the audit at the end says so.
async fn interrupt_each(stack: &Stack, interrupt: impl AsyncFn(&Service)) {
    let mut services = stack.start_all().await;
    let client = stack.client().await;
    let accounts = [client.open_account().await, client.open_account().await];
    let traffic = Traffic::start(&client, &stack.book, &accounts, 6);
    for (service, kind) in services.iter_mut().zip(Kind::ALL) {
        traffic.flow(PAYMENTS).await;
        interrupt(service).await;
        *service = stack.start(kind).await;
        traffic.flow(PAYMENTS).await;
    }
    traffic.stop().await;
    let audit = stack.audit().await;
    assert!(
        audit.processed() > 0 && audit.failed() > 0,
        "the traffic was no mix"
    );
}
