use std::{io, pin::pin, sync::Arc};

use common::{
    admin::{self, Readiness},
    db::{DatabaseSettings, Isolation},
    outbox::WakeUp,
    runtime::Thread,
    telemetry::{Metrics, sample_pool},
};
use sqlx::PgPool;
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use crate::{
    AppState, BodyRoom, Database, app, auth,
    intake::Intake,
    server::{self, App},
    settings::Settings,
};

/// The name of our sessions in `pg_stat_activity`.
const APPLICATION_NAME: &str = "postonce-api";
/// The keys have a connection of their own, so that they are still read when every other is busy.
const KEYS_CONNECTIONS: u32 = 1;

/// Binds both ports and serves until the token is cancelled, the last request is answered and the
/// last batch written.
///
/// # Errors
/// If a port cannot be had, or a lane of the intake was lost.
pub async fn run(settings: Settings, metrics: Metrics, stop: CancellationToken) -> io::Result<()> {
    let readiness = Readiness::default();
    let admin = admin::bind("admin", settings.admin_bind_addr).await?;
    let listener = admin::bind("api", settings.api_bind_addr).await?;
    // The admin server answers until the process ends: /ready and /metrics are wanted most while it
    // is shutting down.
    let never = CancellationToken::new();
    tokio::spawn(admin::serve(
        admin,
        readiness.clone(),
        metrics.clone(),
        never.clone(),
    ));
    tokio::spawn(metrics.upkeep(never));
    // A batch that was written is answered, and the next one sent, before the requests that came
    // meanwhile are read.
    let intake = Thread::start("intake")?;
    Service::start(&settings, &readiness, intake.handle())
        .serve(listener, stop)
        .await
}

/// The service without its ports: the app, and what works behind it.
#[derive(Debug)]
pub struct Service {
    /// Answers requests.
    pub app: App,
    server: server::ServerSettings,
    intake: Intake,
    /// The intake's lanes, which end by themselves when nobody can send any more.
    lanes: TaskTracker,
    /// Ends the tasks that would go on for ever.
    end: CancellationToken,
    pools: [PgPool; 3],
}

impl Service {
    /// Starts everything, the intake's lanes on a runtime of the caller's choice; nothing waits for
    /// the database.
    #[must_use]
    pub fn start(settings: &Settings, readiness: &Readiness, for_intake: &Handle) -> Self {
        let (lanes, end) = (TaskTracker::new(), CancellationToken::new());
        let connections_max = settings.database.database_connections_max;
        let general = pool(settings, connections_max, Isolation::ReadCommitted);
        let intake = pool(
            settings,
            settings.intake.intake_lanes,
            Isolation::Serializable,
        );
        let keys = pool(settings, KEYS_CONNECTIONS, Isolation::ReadCommitted);
        tokio::spawn(sample_pool(general.clone(), "general", end.clone()));
        tokio::spawn(sample_pool(intake.clone(), "intake", end.clone()));
        let database = readiness.component("database");
        let wake_up = start_hints(settings, &end, for_intake);
        let (ring, refresh) = auth::keep_fresh(keys.clone(), settings.keys, database, end.clone());
        tokio::spawn(refresh);
        let into_lanes = start_intake(settings, &intake, &wake_up, &lanes, for_intake);
        let state = AppState {
            keys: ring,
            intake: into_lanes.clone(),
            database: Database::new(general.clone(), settings.server.request_timeout()),
            bodies: BodyRoom::new(settings.server.http_bodies_bytes_max),
            server: settings.server,
            wake_up,
            transactions_topic: settings.transactions_topic.clone(),
            results_topic: settings.results_topic.clone(),
            list_examined_rows_max: settings.list_examined_rows_max,
        };
        Self {
            app: app(Arc::new(state), readiness.clone()),
            server: settings.server,
            intake: into_lanes,
            lanes,
            end,
            pools: [general, intake, keys],
        }
    }

    /// Serves until the token is cancelled, then ends.
    ///
    /// # Errors
    /// If a lane of the intake was lost. Nobody would write its accounts' transactions any more, so the
    /// service ends, and whatever manages the process starts another one.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let stop = stop.child_token();
        let mut serving = pin!(server::serve(
            listener,
            self.app.clone(),
            self.server,
            stop.clone()
        ));
        let ended = tokio::select! {
            () = &mut serving => Ok(()),
            () = self.intake.lane_lost() => {
                error!("a lane of the intake was lost: the service ends");
                stop.cancel();
                serving.await;
                Err(io::Error::other("a lane of the intake was lost"))
            }
        };
        self.end().await;
        ended
    }

    /// Writes what the intake still holds, then ends everything behind the app. The hint of the last
    /// batch may stay unsent: the publisher looks by itself, too.
    pub async fn end(self) {
        drop((self.app, self.intake));
        self.lanes.close();
        self.lanes.wait().await;
        self.end.cancel();
        for pool in self.pools {
            pool.close().await;
        }
    }
}

fn start_hints(settings: &Settings, end: &CancellationToken, runtime: &Handle) -> WakeUp {
    let isolation = Isolation::ReadCommitted;
    let session = settings
        .database_url
        .session(&settings.database, APPLICATION_NAME, isolation);
    // Hints go out beside the requests, too.
    let _on_it = runtime.enter();
    WakeUp::start(session, end.clone())
}

fn start_intake(
    settings: &Settings,
    pool: &PgPool,
    wake_up: &WakeUp,
    lanes: &TaskTracker,
    runtime: &Handle,
) -> Intake {
    Intake::start(
        &settings.intake,
        pool,
        settings.database.answer_timeout(),
        &settings.transactions_topic,
        wake_up,
        lanes,
        runtime,
    )
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
