//! Postonce's REST service.

use std::io::{self, Write};

use anyhow::Context;
use api::{
    auth, openapi,
    settings::{Cli, Command, OwnerSettings, Settings},
};
use common::{
    db::MIGRATOR,
    settings::{parse_or_exit, refuse},
    shutdown, telemetry,
};
use sqlx::{Connection, PgConnection};

/// Small, short-lived pieces cost less than with the system's allocator (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let cli = parse_or_exit::<Cli>();
    let runtime = cli.settings.runtime;
    runtime.run(start(cli)).context("runtime")?
}

async fn start(Cli { command, settings }: Cli) -> anyhow::Result<()> {
    match command {
        None => serve(settings).await,
        Some(Command::Migrate(owner)) => migrate(&owner).await,
        Some(Command::Keys { command, owner }) => {
            auth::admin::run(&mut connect(&owner).await?, command).await
        }
        Some(Command::Openapi) => write!(io::stdout(), "{}", openapi::document_json())
            .context("the document could not be printed"),
    }
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    if let Err(message) = settings.check() {
        refuse(&message);
    }
    telemetry::init_logs(&settings.logs, "api")?;
    let metrics = telemetry::install_metrics()?;
    let stop = shutdown::on_signal()?;
    let shutdown = settings.shutdown;
    let served = shutdown
        .drain(&stop, api::run(settings, metrics, stop.clone()))
        .await;
    served.transpose()?;
    Ok(())
}

async fn migrate(owner: &OwnerSettings) -> anyhow::Result<()> {
    let mut connection = connect(owner).await?;
    MIGRATOR
        .run(&mut connection)
        .await
        .context("the schema could not be brought up to date")?;
    eprintln!("The schema is up to date.");
    Ok(())
}

async fn connect(owner: &OwnerSettings) -> anyhow::Result<PgConnection> {
    let options = owner.database_owner_url.plain();
    PgConnection::connect_with(&options)
        .await
        .context("the database could not be reached")
}
