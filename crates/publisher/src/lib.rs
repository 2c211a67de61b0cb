//! The publisher: moves events from the outbox to Kafka, in order for each account, at least once.

mod backoff;
mod courier;
mod cycle;
mod database;
mod gauges;
mod health;
mod hint;
mod hinted;
mod housekeeping;
mod lag;
mod lanes;
mod metrics_help;
mod quiet;
mod resend;
mod settings;
mod topics;

use std::sync::Arc;

use common::{admin::Readiness, db::Isolation, shutdown::beside, telemetry::sample_pool};
pub use database::Database;
pub use gauges::sample as sample_outbox;
pub use housekeeping::remove_old;
pub use resend::{ResendError, expectation, resend};
pub use settings::{Command, KafkaSettings, PublishingSettings, Settings};
use sqlx::postgres::PgConnectOptions;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    cycle::{Cycle, CycleParts},
    health::Health,
    topics::{TopicKeeper, TopicsState},
};

/// The name of this service's sessions and logs.
pub const SERVICE: &str = "publisher";

/// The publisher's work: it publishes until the token is cancelled, then until every row on its way
/// is reported and marked; its lanes are given up last. Dropped before that, it ends at once, as in
/// a crash. It ends before the token is cancelled only if one of its parts did, and says so in the log.
///
/// What it needs is registered in `readiness` by the call itself, so that the service is unready
/// from the start.
pub fn run(
    settings: Settings,
    readiness: &Readiness,
    token: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let components = Components {
        database: Health::new(readiness.component("database")),
        broker: Health::new(readiness.component("broker")),
        topics: Health::new(readiness.component("topics")),
        lanes: Health::new(readiness.component("lanes")),
    };
    // Boxed, because it is large and its callers pass it on by value.
    Box::pin(publish(settings, components, token))
}

/// What the service needs, each with its own reason when it is missing.
struct Components {
    database: Health,
    broker: Health,
    topics: Health,
    lanes: Health,
}

async fn publish(settings: Settings, components: Components, token: CancellationToken) {
    metrics_help::describe();
    let stop = token.child_token();
    let (topics_sender, topics) = watch::channel(TopicsState::NotReady);
    let (answered, broker_answered) = watch::channel(None);
    let parts = CycleParts {
        database: database(&settings),
        ownership: Arc::default(),
        topics,
        broker_answered,
        recheck_topics: Arc::default(),
        hinted: Arc::default(),
        outbox: components.database.quiet_side(),
        broker: components.broker.quiet_side(),
        lanes: components.lanes.needed_side(),
    };
    let keeper = TopicKeeper {
        settings: settings.kafka.clone(),
        broker: components.broker.needed_side(),
        topics: components.topics.needed_side(),
        state: topics_sender,
        answered,
        recheck: Arc::clone(&parts.recheck_topics),
        hinted: Arc::clone(&parts.hinted),
    };
    // Everything in the set ends when it is dropped.
    let mut background = JoinSet::new();
    background.spawn(keeper.keep());
    watch_over(&mut background, &settings, &parts);
    // The lanes are held until the last mark is written.
    let stop_lanes = CancellationToken::new();
    let mut lane_keeper = JoinSet::new();
    lane_keeper.spawn(lanes::keep(
        session(&settings).options(lanes::SESSION_OPTIONS),
        Arc::clone(&parts.ownership),
        components.database.needed_side(),
        Arc::clone(&parts.hinted),
        stop_lanes.clone(),
    ));
    let cycle = Cycle::new(parts, &settings.kafka, settings.publishing.clone());
    let shutdown = settings.shutdown;
    let cycle = Box::pin(cycle.run(stop.clone()));
    let publishing = beside(&mut lane_keeper, &stop, shutdown, cycle);
    // What failed has been told, and the lanes are given up all the same.
    let _ = beside(&mut background, &stop, shutdown, publishing).await;
    stop_lanes.cancel();
    if let Some(Err(error)) = lane_keeper.join_next().await {
        warn!(%error, "the session of the lanes did not end in good order");
    }
}

/// Starts what goes on beside publishing: the hint, the gauges, housekeeping.
fn watch_over(background: &mut JoinSet<()>, settings: &Settings, parts: &CycleParts) {
    background.spawn(hint::listen(session(settings), Arc::clone(&parts.hinted)));
    background.spawn(lag::run(settings.kafka.clone()));
    background.spawn(gauges::run(parts.database.clone()));
    let forever = CancellationToken::new();
    background.spawn(sample_pool(parts.database.pool(), SERVICE, forever));
    background.spawn(housekeeping::run(
        parts.database.clone(),
        Arc::clone(&parts.ownership),
        settings.publishing.outbox_retention,
    ));
}

fn session(settings: &Settings) -> PgConnectOptions {
    settings
        .database_url
        .session(&settings.database, SERVICE, Isolation::ReadCommitted)
}

fn database(settings: &Settings) -> Database {
    let session = session(settings).options(cycle::SESSION_OPTIONS);
    Database::new(settings.database.pool(session), &settings.database)
}
