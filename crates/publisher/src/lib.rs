//! The publisher: moves events from the outbox to Kafka, in order for each account, at least once.

mod backoff;
mod courier;
mod cycle;
mod gauges;
mod health;
mod hint;
mod housekeeping;
mod lag;
mod lanes;
mod resend;
mod settings;
mod topics;

use std::sync::Arc;

use common::{admin::Readiness, db::Isolation, telemetry::sample_pool};
pub use gauges::sample as sample_outbox;
pub use housekeeping::remove_old;
pub use resend::{ResendError, expectation, resend};
pub use settings::{Command, KafkaSettings, PublishingSettings, Settings};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cycle::{Cycle, CycleParts},
    health::Health,
    lanes::Ownership,
    topics::{TopicKeeper, TopicsState},
};

/// The name of this service's sessions and logs.
pub const SERVICE: &str = "publisher";

/// Publishes until the token is cancelled, then until every row on its way is reported and marked;
/// its lanes are given up last. Dropped before that, it ends at once, as in a crash.
pub async fn run(settings: &Settings, readiness: &Readiness, token: CancellationToken) {
    let wake = Arc::new(Notify::new());
    let recheck_topics = Arc::new(Notify::new());
    let ownership = Arc::new(Ownership::default());
    let database = Health::new(readiness.component("database"));
    let broker = Health::new(readiness.component("broker"));
    let (topics_sender, topics) = watch::channel(TopicsState::NotReady);
    let pool = pool(settings);
    let session = session(settings);

    // All of it ends when the set is dropped; the lanes' session is ended in good order before.
    let mut background = JoinSet::new();
    let stop_lanes = CancellationToken::new();
    let lanes_kept = background.spawn(lanes::keep(
        session.clone().options(lanes::SESSION_OPTIONS),
        Arc::clone(&ownership),
        database.needed_side(),
        Arc::clone(&wake),
        stop_lanes.clone(),
    ));
    background.spawn(hint::listen(session, Arc::clone(&wake)));
    let keeper = TopicKeeper {
        settings: settings.kafka.clone(),
        broker: broker.needed_side(),
        topics: Health::new(readiness.component("topics")).needed_side(),
        state: topics_sender,
        recheck: Arc::clone(&recheck_topics),
        wake: Arc::clone(&wake),
    };
    background.spawn(keeper.keep());
    background.spawn(lag::run(settings.kafka.clone()));
    background.spawn(gauges::run(pool.clone()));
    background.spawn(sample_pool(pool.clone(), SERVICE, stop_lanes.clone()));
    let retention = settings.publishing.outbox_retention;
    if !retention.is_zero() {
        background.spawn(housekeeping::run(
            pool.clone(),
            Arc::clone(&ownership),
            retention,
        ));
    }
    let parts = CycleParts {
        pool,
        ownership,
        topics,
        recheck_topics,
        wake,
        database: database.quiet_side(),
        lanes: Health::new(readiness.component("lanes")).needed_side(),
    };
    let cycle = Cycle::new(
        parts,
        broker.quiet_side(),
        &settings.kafka,
        settings.publishing.clone(),
    );
    cycle.run(token).await;
    stop_lanes.cancel();
    while let Some(ended) = background.join_next_with_id().await {
        if ended.is_ok_and(|(id, ())| id == lanes_kept.id()) {
            break;
        }
    }
}

fn session(settings: &Settings) -> PgConnectOptions {
    settings
        .database_url
        .session(&settings.database, SERVICE, Isolation::ReadCommitted)
}

fn pool(settings: &Settings) -> PgPool {
    PgPoolOptions::new()
        .max_connections(settings.database.database_connections_max)
        .acquire_timeout(std::time::Duration::from_millis(
            settings.database.database_acquire_timeout_ms,
        ))
        // A broken connection shows itself at its first statement, and every caller tries again.
        .test_before_acquire(false)
        .connect_lazy_with(session(settings).options(cycle::SESSION_OPTIONS))
}
