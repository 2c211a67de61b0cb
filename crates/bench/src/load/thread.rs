use anyhow::Context;
use tokio::{runtime, sync::oneshot};

/// Runs a load on an operating system's thread of its own, with a runtime that has no other: nothing
/// of it ever waits for another thread of ours, and its cost is one thread's.
pub(super) async fn on_own_thread<T: Send + 'static>(
    work: impl AsyncFnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (send, receive) = oneshot::channel();
    std::thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let outcome = runtime.block_on(work());
            // Nobody waits for the outcome any more if it cannot be sent.
            let _ = send.send(outcome);
        })?;
    receive.await.context("the load's thread panicked")
}
