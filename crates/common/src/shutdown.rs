//! SIGTERM or SIGINT, then: stop taking work, drain with a deadline, cancel. A second signal ends the
//! process at once.

mod background;

use std::{future::Future, io, process::exit, time::Duration};

pub use background::{BackgroundError, all_end, beside};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// How a service ends.
#[derive(Args, Clone, Copy, Debug)]
pub struct ShutdownSettings {
    /// How long work under way may take to finish after SIGTERM or SIGINT, in milliseconds; longer
    /// than a request may take, shorter than a process manager waits before it kills
    #[arg(long, env, default_value_t = 25_000, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub shutdown_grace_ms: u64,
}

/// A token that is cancelled at SIGTERM or SIGINT: stop taking work. A second signal exits the process
/// at once, with 128 and the signal's number as a shell has it: what was under way is lost as in a
/// crash, which loses nothing that was acknowledged.
///
/// # Errors
/// If the process may not install signal handlers.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 15),
                _ = interrupt.recv() => ("SIGINT", 2),
            }
        };
        let (name, _) = next().await;
        info!(signal = name, "shutting down: no new work is taken");
        cancel.cancel();
        let (name, number) = next().await;
        warn!(signal = name, "a second signal: exiting at once");
        exit(128 + number);
    });
    Ok(token)
}

impl ShutdownSettings {
    /// Runs a service to its end: work goes on until the stop token, then has the grace period to
    /// drain, and is dropped after it. Whether it ended by itself in time is the answer.
    pub async fn drain<F: Future>(self, stop: &CancellationToken, work: F) -> Option<F::Output> {
        tokio::pin!(work);
        tokio::select! {
            output = &mut work => return Some(output),
            () = stop.cancelled() => {}
        }
        let grace = Duration::from_millis(self.shutdown_grace_ms);
        let drained = timeout(grace, work).await.ok();
        if drained.is_none() {
            warn!(
                grace_ms = self.shutdown_grace_ms,
                "work was still under way at the deadline"
            );
        }
        drained
    }

    /// Waits for a service's background tasks to end, for as long as the grace period.
    pub async fn wait(self, tasks: &TaskTracker) {
        tasks.close();
        if timeout(Duration::from_millis(self.shutdown_grace_ms), tasks.wait())
            .await
            .is_err()
        {
            warn!(
                tasks = tasks.len(),
                "background tasks were still running at the deadline"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_under_way_is_drained() {
        let stop = CancellationToken::new();
        let settings = ShutdownSettings {
            shutdown_grace_ms: 60_000,
        };
        let work = async {
            stop.cancelled().await;
            "drained"
        };
        let (output, ()) = tokio::join!(settings.drain(&stop, work), async { stop.cancel() });
        assert_eq!(output, Some("drained"));
    }

    #[tokio::test]
    async fn work_that_never_ends_is_cut_off() {
        let stop = CancellationToken::new();
        stop.cancel();
        let settings = ShutdownSettings {
            shutdown_grace_ms: 1,
        };
        assert_eq!(
            settings.drain(&stop, std::future::pending::<()>()).await,
            None
        );
    }
}
