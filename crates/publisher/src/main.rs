//! The publisher's process: settings, logs, metrics, the admin server, and the end.

use anyhow::{Context, ensure};
use common::{
    admin::{self, Readiness},
    settings::{parse_or_exit, refuse},
    shutdown::on_signal,
    telemetry::{init_logs, install_metrics},
};
use publisher::{Command, SERVICE, Settings};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

fn main() -> anyhow::Result<()> {
    let settings: Settings = parse_or_exit();
    if let Err(message) = settings.check() {
        refuse(&message);
    }
    let runtime = settings.runtime;
    runtime.run(start(settings)).context("runtime")?
}

async fn start(settings: Settings) -> anyhow::Result<()> {
    let Some(Command::Resend { pending_older_than }) = settings.command else {
        return serve(settings).await;
    };
    let topic = &settings.kafka.transactions_topic;
    let database = settings.database_url.plain();
    let resent = publisher::resend(database, topic, pending_older_than).await?;
    println!("{resent}");
    eprintln!("{}", publisher::expectation(resent, topic));
    Ok(())
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    init_logs(&settings.logs, SERVICE).context("logs")?;
    let metrics = install_metrics().context("metrics")?;
    let listener = admin::bind("admin", settings.admin_bind_addr).await?;
    let readiness = Readiness::default();
    let stop = on_signal().context("signal handlers")?;
    let stop_admin = CancellationToken::new();
    let shutdown = settings.shutdown;
    let work = publisher::run(settings, &readiness, stop.clone());
    let tasks = TaskTracker::new();
    tasks.spawn(metrics.clone().upkeep(stop_admin.clone()));
    let admin = admin::serve(listener, readiness, metrics, stop_admin.clone());
    tasks.spawn(admin);
    tasks.close();
    let all = async {
        work.await;
        stop_admin.cancel();
        tasks.wait().await;
    };
    // One grace period for everything.
    shutdown.drain(&stop, all).await;
    ensure!(
        stop.is_cancelled(),
        "a part of the publisher failed: the log tells which"
    );
    Ok(())
}
