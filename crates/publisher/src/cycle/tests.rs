//! Steps, one at a time. No broker is there: what was sent stays on its way.

use common::{
    admin::Readiness,
    db::DatabaseSettings,
    outbox::{self, OutboxEvent},
    settings::parse_from,
    types::{AccountId, EventId, EventType, TransactionId},
};
use sqlx::PgPool;

use super::*;
use crate::{Settings, health::Health, lanes::LaneSet};

const READY: TopicsState = TopicsState::Ready {
    message_bytes_max: 1_000_000,
};

async fn append_three_rows(pool: &PgPool) {
    let account_id = AccountId::new();
    let event = || {
        let transaction_id = TransactionId::new();
        OutboxEvent {
            event_id: EventId::from(transaction_id),
            account_id,
            transaction_id,
            event_type: EventType::TransactionCreated,
            payload: "{}".to_owned(),
        }
    };
    let mut connection = pool.acquire().await.unwrap();
    outbox::insert(
        &mut connection,
        "transactions",
        &[event(), event(), event()],
    )
    .await
    .unwrap();
}

fn owner_of_all_lanes() -> Arc<Ownership> {
    let ownership = Ownership::default();
    ownership.acquired(LaneSet::ALL);
    ownership.confirm(Instant::now());
    Arc::new(ownership)
}

/// A cycle that owns all lanes, and the word about the topics.
fn cycle(pool: PgPool) -> (Cycle, watch::Sender<TopicsState>) {
    let settings: Settings = parse_from(&["publisher", "--kafka-brokers=127.0.0.1:1"]).unwrap();
    let readiness = Readiness::default();
    let side = |name| Health::new(readiness.component(name)).quiet_side();
    let (state, topics) = watch::channel(TopicsState::NotReady);
    let parts = CycleParts {
        database: Database::new(pool, &DatabaseSettings::default()),
        ownership: owner_of_all_lanes(),
        topics,
        broker_answered: watch::channel(None).1,
        recheck_topics: Arc::default(),
        wake: Arc::default(),
        outbox: side("database"),
        broker: side("broker"),
        lanes: side("lanes"),
    };
    (
        Cycle::new(parts, &settings.kafka, settings.publishing),
        state,
    )
}

async fn pending(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM outbox_events WHERE status = 'PENDING'")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn nothing_is_sent_while_the_topics_are_not_right(pool: PgPool) {
    append_three_rows(&pool).await;
    let (mut cycle, topics) = cycle(pool);
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Idle);
    assert_eq!(cycle.flights.outstanding(), 0);
    topics.send_replace(READY);
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Moved);
    // The first row of a lane goes alone until the broker knows the producer.
    assert_eq!(cycle.flights.outstanding(), 1);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn nothing_more_is_sent_once_a_running_publishers_topics_are_wrong(pool: PgPool) {
    let (mut cycle, topics) = cycle(pool.clone());
    topics.send_replace(READY);
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Idle);
    append_three_rows(&pool).await;
    topics.send_replace(TopicsState::NotReady);
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Idle);
    assert_eq!(cycle.flights.outstanding(), 0);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_that_no_broker_has_acknowledged_stays_pending(pool: PgPool) {
    append_three_rows(&pool).await;
    let (mut cycle, topics) = cycle(pool.clone());
    topics.send_replace(READY);
    for _ in 0..3 {
        cycle.step(false).await.unwrap();
        assert_eq!(cycle.flights.outstanding(), 1);
        assert_eq!(pending(&pool).await, 3);
    }
    // It is waited for at the end too.
    assert_ne!(cycle.step(true).await.unwrap(), Outcome::Drained);
}
