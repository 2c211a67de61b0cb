//! What a worker says of its place in the group, and of the log that it is given.

use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::PgPool;

use crate::support::{kafka::*, proxy::Proxy, *};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_worker_is_ready_when_it_joined_be_it_without_a_partition(pool: PgPool) {
    let stream = Stream::new(1).await;
    let mut elsewhere = stream.config(&pool);
    // Nobody listens on the discard port.
    elsewhere.kafka.kafka_brokers = "127.0.0.1:9".to_owned();
    let alone = Running::start(&elsewhere);
    let members = [
        Running::start(&stream.config(&pool)),
        Running::start(&stream.config(&pool)),
    ];
    for member in &members {
        eventually("the member has joined", async || {
            member.readiness.reasons().is_empty()
        })
        .await;
    }
    let reasons = alone.readiness.reasons();
    assert_eq!(reasons.keys().collect::<Vec<_>>(), [&"group"]);
    alone.stop().await;
    for member in members {
        member.stop().await;
    }
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_log_that_loses_records_under_its_reader_is_noticed(pool: PgPool) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let mut proxy = Proxy::to(&pool).await;
    let mut config = stream.config(&pool);
    config.database_url = proxy.options(&pool).into();
    // Far longer than a slice is worked on before the consumer pauses, and so fetches nothing more: that
    // it waits for the database is told when this time is over.
    config.database.database_acquire_timeout_ms = 3_000;
    proxy.cut();
    stream
        .publish(0, &accept(&pool, account, CREDIT, 1).await)
        .await;
    let mut stepper = Stepper::join(&config);
    let readiness = stepper.readiness.clone();
    let losing = async {
        eventually("the first event waits for the database", async || {
            readiness.reasons().contains_key("database")
        })
        .await;
        for cents in [10, 100, 1_000] {
            let event = accept(&pool, account, CREDIT, cents).await;
            stream.publish(0, &event).await;
        }
        stream.delete_records(0, 3).await;
        proxy.mend().await;
    };
    let (tally, ()) = tokio::join!(stepper.consume(2), losing);
    assert_eq!(tally.applied, 2);
    assert_eq!(balance(&pool, account).await, (1_001, 2));
    stepper.leave().await;
    let told = format!(
        "consumer_offset_out_of_range_total{{topic=\"{}\",partition=\"0\"}} 1",
        stream.topic
    );
    let scrape = metrics.render();
    assert!(scrape.contains(&told), "{scrape}");
}
