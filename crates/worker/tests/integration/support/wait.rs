//! Waiting for conditions, with a bound.

use std::time::Duration;

use tokio::time::{interval, timeout};

/// How long a condition may take to come true; only a broken test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until a question's answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let mut ticks = interval(Duration::from_millis(20));
    let come_true = async {
        loop {
            ticks.tick().await;
            if ask().await {
                return;
            }
        }
    };
    timeout(PATIENCE, come_true)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}
