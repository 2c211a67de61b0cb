use e2e::{Kind, Service, Stack, Traffic, eventually, test};

#[test]
fn a_frozen_worker_is_taken_over_and_posts_nothing_twice() {
    test(async |stack| freeze(stack, Kind::Worker).await);
}

#[test]
fn a_frozen_publisher_is_taken_over_and_loses_nothing() {
    test(async |stack| freeze(stack, Kind::Publisher).await);
}

/// One of two instances stops in its tracks, as in a long pause of its machine, and comes back when
/// the other has done its work.
async fn freeze(stack: &Stack, kind: Kind) {
    let all = stack.start_all().await;
    let second = stack.start(kind).await;
    let client = stack.client().await;
    let accounts = [client.open_account().await, client.open_account().await];
    let traffic = Traffic::start(&client, &stack.book, &accounts, 4);
    traffic.flow(40).await;
    let frozen = all
        .iter()
        .find(|service| service.kind() == kind)
        .expect("all kinds run");
    frozen.signal("STOP").await;
    traffic.flow(40).await;
    taken_over(stack, &second).await;
    frozen.signal("CONT").await;
    traffic.flow(40).await;
    frozen.ready().await;
    traffic.stop().await;
    stack.audit().await;
}

/// Everything accepted by now comes to its end without the frozen one.
async fn taken_over(stack: &Stack, second: &Service) {
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let now_us = stack.database.count(now).await;
    eventually(&format!("{} goes on alone", second.label()), async || {
        let open = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM transactions
              WHERE created_at <= to_timestamp($1 / 1000000.0) AND status = 'PENDING'",
        );
        let open = open
            .bind(now_us)
            .fetch_one(stack.database.superuser())
            .await;
        (open.expect("a count failed") == 0).then_some(())
    })
    .await;
}
