use std::io;

use common::{
    admin::{self, Readiness},
    db::{DatabaseSettings, Isolation},
    outbox::WakeUp,
    telemetry::{Metrics, sample_pool},
};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{AppState, Database, app, auth, intake::Intake, server, settings::Settings};

/// The name of our sessions in `pg_stat_activity`.
const APPLICATION_NAME: &str = "postonce-api";
/// Connections beside the pools' that a request may need: the keys have their own, so that they
/// are still read when every other is busy.
const KEYS_CONNECTIONS: u32 = 1;

/// What goes on beside the requests; to be waited for at the end.
#[derive(Debug)]
pub struct Running {
    /// Tasks that end by themselves once the service has ended, e.g. the intake's last batches.
    pub tasks: TaskTracker,
}

/// Binds both ports and serves until the token is cancelled and the last request is answered.
///
/// # Errors
/// If a port cannot be had, or the admin server fails.
pub async fn run(
    settings: Settings,
    metrics: Metrics,
    stop: CancellationToken,
) -> io::Result<Running> {
    let tasks = TaskTracker::new();
    let readiness = Readiness::default();
    let admin = admin::bind("admin", settings.admin_bind_addr).await?;
    let listener = admin::bind("api", settings.api_bind_addr).await?;
    // The admin server answers until the process ends: /ready and /metrics are wanted most while it
    // is shutting down.
    tokio::spawn(admin::serve(
        admin,
        readiness.clone(),
        metrics.clone(),
        CancellationToken::new(),
    ));
    tokio::spawn(metrics.upkeep(CancellationToken::new()));
    serve(settings, readiness, listener, &tasks, stop).await;
    Ok(Running { tasks })
}

async fn serve(
    settings: Settings,
    readiness: Readiness,
    listener: TcpListener,
    tasks: &TaskTracker,
    stop: CancellationToken,
) {
    // Keys are read and hints are sent until the last request is answered, not until the first sign
    // of the end.
    let end = CancellationToken::new();
    let _ends = end.clone().drop_guard();
    let state = state(&settings, &readiness, tasks, &end);
    let app = app(state, readiness);
    server::serve(listener, app, settings.server, stop).await;
}

fn state(
    settings: &Settings,
    readiness: &Readiness,
    tasks: &TaskTracker,
    end: &CancellationToken,
) -> AppState {
    let general = pool(
        settings,
        settings.database.database_connections_max,
        Isolation::ReadCommitted,
    );
    let intake = pool(
        settings,
        settings.intake.intake_lanes,
        Isolation::Serializable,
    );
    tokio::spawn(sample_pool(general.clone(), "general", end.clone()));
    tokio::spawn(sample_pool(intake.clone(), "intake", end.clone()));
    let (keys, refresh) = auth::keep_fresh(
        pool(settings, KEYS_CONNECTIONS, Isolation::ReadCommitted),
        settings.keys,
        readiness.component("database"),
        end.clone(),
    );
    tokio::spawn(refresh);
    let session = settings.database_url.session(
        &settings.database,
        APPLICATION_NAME,
        Isolation::ReadCommitted,
    );
    let wake_up = WakeUp::start(session, end.clone());
    AppState {
        keys,
        intake: Intake::start(
            &settings.intake,
            &intake,
            &settings.transactions_topic,
            &wake_up,
            tasks,
        ),
        database: Database::new(general, settings.server.request_timeout()),
        server: settings.server,
        list_examined_rows_max: settings.list_examined_rows_max,
    }
}

fn pool(settings: &Settings, connections_max: u32, isolation: Isolation) -> PgPool {
    let sized = DatabaseSettings {
        database_connections_max: connections_max,
        ..settings.database.clone()
    };
    settings
        .database_url
        .pool(&sized, APPLICATION_NAME, isolation)
}
