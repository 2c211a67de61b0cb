//! The tasks beside the service's main work.

use std::{
    future::{Future, pending},
    pin::pin,
};

use thiserror::Error;
use tokio::{
    select,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::ShutdownSettings;

/// Why a service ended although nobody told it to.
#[derive(Debug, Error)]
pub enum BackgroundError {
    /// A task came to its end.
    #[error("a background task ended before the service")]
    Ended,
    /// A task panicked.
    #[error("a background task failed")]
    Failed(#[source] JoinError),
}

/// Does the service's work to its end, beside its background tasks.
///
/// No task ends before the work is told to stop. One that does has failed, and without it the service
/// would look alive and do only a part of what it is for. So the work is told to stop, too, has the
/// grace period for that, and the failure is the answer: the process ends with it, and whatever
/// manages the process starts another one.
///
/// # Errors
/// If a task ended too early.
pub async fn beside<T>(
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
    shutdown: ShutdownSettings,
    work: impl Future<Output = T>,
) -> Result<T, BackgroundError> {
    let mut work = pin!(work);
    let ended = select! {
        biased;
        output = &mut work => return Ok(output),
        () = stop.cancelled() => return Ok(work.await),
        ended = first_end(tasks) => ended,
    };
    let error = match ended {
        Ok(()) => BackgroundError::Ended,
        Err(panic) => BackgroundError::Failed(panic),
    };
    error!(error = &error as &dyn std::error::Error, "the service ends");
    stop.cancel();
    shutdown.drain(stop, work).await;
    Err(error)
}

/// Waits for the first of the tasks to end; for ever, if there is none.
async fn first_end(tasks: &mut JoinSet<()>) -> Result<(), JoinError> {
    match tasks.join_next().await {
        Some(ended) => ended,
        None => pending().await,
    }
}

/// Waits until all tasks have ended.
pub async fn all_end(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a background task did not end in good order");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    /// Work that ends only when it is told to.
    async fn run(
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<&'static str, BackgroundError> {
        let work = async {
            stop.cancelled().await;
            "drained"
        };
        let shutdown = ShutdownSettings {
            shutdown_grace_ms: 600_000,
        };
        timeout(PATIENCE, beside(tasks, stop, shutdown, work))
            .await
            .expect("the service ends")
    }

    #[tokio::test]
    async fn a_task_that_ends_too_early_ends_the_service_with_an_error() {
        let (panics, returns) = (async { panic!("a bug") }, async {});
        let mut broken: [JoinSet<()>; 2] = [JoinSet::new(), JoinSet::new()];
        broken[0].spawn(panics);
        broken[1].spawn(returns);
        let mut ends = Vec::new();
        for mut tasks in broken {
            tasks.spawn(pending());
            let stop = CancellationToken::new();
            ends.push(run(&mut tasks, &stop).await.unwrap_err());
            assert!(stop.is_cancelled(), "the work was dropped");
        }
        assert!(
            matches!(&ends[..], [BackgroundError::Failed(panic), BackgroundError::Ended] if panic.is_panic()),
            "{ends:?}"
        );
    }

    #[tokio::test]
    async fn tasks_end_with_the_service_that_is_told_to() {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(stop.clone().cancelled_owned());
        let telling = async {
            sleep(Duration::from_millis(1)).await;
            stop.cancel();
        };
        let (output, ()) = tokio::join!(run(&mut tasks, &stop), telling);
        assert_eq!(output.unwrap(), "drained");
        all_end(&mut tasks).await;
    }

    #[tokio::test]
    async fn work_that_cannot_end_beside_a_broken_task_is_cut_off() {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(async {});
        let shutdown = ShutdownSettings {
            shutdown_grace_ms: 1,
        };
        let ended = timeout(
            PATIENCE,
            beside(&mut tasks, &stop, shutdown, pending::<()>()),
        );
        assert!(ended.await.expect("it ends").is_err());
    }
}
