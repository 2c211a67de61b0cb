use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long any condition may take to come true. It is generous, because two busy cores run several
/// tests at once; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// The pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(25);

/// Looks again and again until there is something to see, and hands it over.
///
/// # Panics
/// If there is nothing within [`PATIENCE`]; the message says what was waited for.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(
            Instant::now() < deadline,
            "not within {} s: {what}",
            PATIENCE.as_secs()
        );
        sleep(POLL).await;
    }
}
