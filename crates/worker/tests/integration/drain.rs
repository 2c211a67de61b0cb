//! Long queues: what is read grows with what is done, not with what waits.

use std::time::Instant;

use common::db::Isolation;
use sqlx::PgPool;
use worker::retry::Step;

use crate::support::{parked::*, *};

/// Temporary.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
#[ignore = "a measurement"]
async fn drain_rate(pool: PgPool) {
    let read =
        |name: &str, default: i64| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let (events, accounts) = (read("EVENTS", 1_000_000), read("ACCOUNTS", 1));
    let isolation = if read("RC", 0) == 1 {
        Isolation::ReadCommitted
    } else {
        Isolation::Serializable
    };
    let started = Instant::now();
    park_many(&pool, events, accounts).await;
    eprintln!("filled in {:?}", started.elapsed());
    if read("KEEP", 0) == 1 {
        eprintln!("{:?}", pool.connect_options().get_database());
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    }
    let mut retrier = Retrier::new(&config(&pool, isolation));
    let started = Instant::now();
    let mut told = Instant::now();
    let (mut moved, mut steps) = (0, 0);
    loop {
        match retrier.retries.step().await {
            Step::Moved(tally) => moved += tally.events(),
            Step::Idle(None) => break,
            step => eprintln!("{step:?}"),
        }
        steps += 1;
        if told.elapsed().as_secs() >= 5 {
            told = Instant::now();
            eprintln!("{moved} after {:?}, {steps} steps", started.elapsed());
        }
    }
    let took = started.elapsed();
    eprintln!(
        "{moved} in {took:?}: {:.0}/s, {steps} steps",
        moved as f64 / took.as_secs_f64()
    );
    let hwm = std::fs::read_to_string("/proc/self/status").unwrap();
    eprintln!("{:?}", hwm.lines().find(|line| line.starts_with("VmHWM")));
    assert_queues_are_whole(&pool).await;
}
