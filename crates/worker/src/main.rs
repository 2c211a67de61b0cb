//! The worker's process: settings, logs, metrics, the admin server, then the work.

use anyhow::Context;
use common::{
    admin::{self, Readiness},
    settings, shutdown,
    telemetry::{init_logs, install_metrics},
};
use tokio_util::sync::CancellationToken;
use worker::config::{Config, SERVICE};

/// Small, short-lived pieces cost less than with the system's allocator (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let config: Config = settings::parse_or_exit();
    if let Err(message) = config.check() {
        settings::refuse(&message);
    }
    let runtime = config.runtime;
    runtime.run(serve(config)).context("runtime")?
}

async fn serve(config: Config) -> anyhow::Result<()> {
    init_logs(&config.logs, SERVICE).context("starting the logs")?;
    let metrics = install_metrics().context("starting the metrics")?;
    worker::metrics::describe();
    let stop = shutdown::on_signal().context("installing signal handlers")?;

    let readiness = Readiness::default();
    let listener = admin::bind("admin", config.admin_bind_addr).await?;
    // The admin server answers until the very end: readiness is asked for while work is drained.
    let ended = CancellationToken::new();
    tokio::spawn(metrics.clone().upkeep(ended.clone()));
    tokio::spawn(admin::serve(
        listener,
        readiness.clone(),
        metrics,
        ended.clone(),
    ));

    let shutdown = config.shutdown;
    let work = Box::pin(worker::run(config, readiness, stop.clone()));
    let drained = shutdown.drain(&stop, work).await;
    ended.cancel();
    drained.unwrap_or(Ok(()))
}
