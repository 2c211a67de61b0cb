use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Condvar, Mutex, Once},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::runtime;

use crate::{
    database::{drop_left_over_databases, is_older},
    kafka::Kafka,
    stack::{Setup, Stack},
};

/// How many tests have services running at the same time; the others wait for their turn.
const STACKS_MAX: usize = 4;
/// What is older than this belongs to a run that was killed, and is removed by the next.
const LEFT_OVER_AFTER: Duration = Duration::from_hours(1);

/// Runs a test on a stack of its own, and takes the stack down, whatever comes of the test.
pub fn test(test: impl AsyncFnOnce(&Stack)) {
    test_with(Setup::default(), test);
}

/// The same with a setup of the test's choice.
pub fn test_with(setup: Setup, test: impl AsyncFnOnce(&Stack)) {
    let _turn = Turn::wait();
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        remove_left_over_once().await;
        let stack = Stack::new(setup).await;
        let outcome = AssertUnwindSafe(async {
            stack.migrate().await;
            test(&stack).await;
            stack.stop().await;
        })
        .catch_unwind()
        .await;
        if outcome.is_err() {
            stack.print_logs();
        }
        stack.discard().await;
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Removes what killed runs have left on the test server, once in this run.
async fn remove_left_over_once() {
    static ONCE: Once = Once::new();
    let mut first = false;
    ONCE.call_once(|| first = true);
    if first {
        remove_left_over(LEFT_OVER_AFTER).await;
    }
}

/// Removes the databases and topics of stacks that are older than that.
pub async fn remove_left_over(age: Duration) {
    drop_left_over_databases(age).await;
    let kafka = Kafka::from_env();
    let topics = kafka.topics();
    let left_over: Vec<_> = topics
        .iter()
        .map(String::as_str)
        .filter(|name| name.split('.').nth(1).is_some_and(|id| is_older(id, age)))
        .filter(|name| name.starts_with("e2e."))
        .collect();
    if !left_over.is_empty() {
        kafka.delete_topics(&left_over).await;
    }
}

/// The right to run services now.
struct Turn;

static RUNNING: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Self {
        let running = RUNNING.lock().unwrap();
        let mut running = FREED.wait_while(running, |n| *n >= STACKS_MAX).unwrap();
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap() -= 1;
        FREED.notify_one();
    }
}
