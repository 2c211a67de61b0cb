//! Steps, one at a time. No broker is there: what was sent stays on its way.

use common::{
    admin::Readiness,
    db::DatabaseSettings,
    outbox::{self, OutboxEvent},
    settings::parse_from,
    types::{AccountId, EventId, EventType, Lane, LaneSet, TransactionId},
};
use rdkafka::error::RDKafkaErrorCode;
use sqlx::PgPool;

use super::{
    flights::{Kind, Route},
    *,
};
use crate::{Settings, health::Health};

const READY: TopicsState = TopicsState::Ready {
    message_bytes_max: 1_000_000,
};

const A_LONG_TIME: Duration = Duration::from_hours(1);

async fn append_three_rows(pool: &PgPool) {
    append(pool, AccountId::new(), 3).await;
}

async fn append(pool: &PgPool, account_id: AccountId, rows: usize) {
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
    let events: Vec<OutboxEvent> = (0..rows).map(|_| event()).collect();
    outbox::insert(&mut connection, "transactions", &events)
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
        hinted: Arc::default(),
        outbox: side("database"),
        broker: side("broker"),
        lanes: side("lanes"),
    };
    (
        Cycle::new(parts, &settings.kafka, settings.publishing),
        state,
    )
}

/// A cycle that may send, has looked at all lanes, and is not to do that again for long.
fn cycle_that_relies_on_hints(pool: PgPool) -> Cycle {
    let (mut cycle, topics) = cycle(pool);
    topics.send_replace(READY);
    cycle.parts.hinted.take(LaneSet::ALL);
    cycle.polls = Polls::new(A_LONG_TIME, A_LONG_TIME, Instant::now());
    cycle.polls.begin(Instant::now());
    cycle
}

fn only(account: AccountId) -> LaneSet {
    LaneSet::from_iter([Lane::of(account)])
}

/// Two accounts in different lanes.
fn two_accounts() -> [AccountId; 2] {
    let one = AccountId::new();
    let mut others = std::iter::repeat_with(AccountId::new);
    let other = others.find(|other| Lane::of(*other) != Lane::of(one));
    [one, other.unwrap()]
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

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn only_lanes_that_are_hinted_are_claimed(pool: PgPool) {
    let [told, untold] = two_accounts();
    let mut cycle = cycle_that_relies_on_hints(pool.clone());
    append(&pool, told, 1).await;
    append(&pool, untold, 1).await;
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Idle);
    cycle.parts.hinted.hint(only(told));
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Moved);
    assert_eq!(cycle.flights.lanes(), only(told));
    assert_eq!(cycle.parts.hinted.lanes(), LaneSet::EMPTY);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_poll_claims_all_lanes(pool: PgPool) {
    let accounts = two_accounts();
    let mut cycle = cycle_that_relies_on_hints(pool.clone());
    for account in accounts {
        append(&pool, account, 1).await;
    }
    cycle.polls = Polls::new(A_LONG_TIME, A_LONG_TIME, Instant::now());
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Moved);
    assert_eq!(cycle.flights.outstanding(), 2);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_hint_for_a_lane_with_rows_on_their_way_waits_for_them(pool: PgPool) {
    let account = AccountId::new();
    let mut cycle = cycle_that_relies_on_hints(pool.clone());
    append(&pool, account, 1).await;
    cycle.parts.hinted.hint(only(account));
    cycle.step(false).await.unwrap();
    append(&pool, account, 1).await;
    cycle.parts.hinted.hint(only(account));
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Idle);
    assert_eq!(cycle.flights.outstanding(), 1);
    assert_eq!(cycle.parts.hinted.lanes(), only(account));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_lane_of_which_not_all_was_sent_stays_hinted(pool: PgPool) {
    let account = AccountId::new();
    let mut cycle = cycle_that_relies_on_hints(pool.clone());
    // The first goes alone until the broker knows the producer.
    append(&pool, account, 2).await;
    cycle.parts.hinted.hint(only(account));
    cycle.step(false).await.unwrap();
    assert_eq!(cycle.flights.outstanding(), 1);
    assert_eq!(cycle.parts.hinted.lanes(), only(account));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn lanes_stay_hinted_when_their_claim_fails(pool: PgPool) {
    let account = AccountId::new();
    let mut cycle = cycle_that_relies_on_hints(pool.clone());
    let rename = |from, to| {
        let statement = format!("ALTER TABLE {from} RENAME TO {to}");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool)
    };
    append(&pool, account, 1).await;
    rename("outbox_events", "away").await.unwrap();
    cycle.parts.hinted.hint(only(account));
    cycle.step(false).await.unwrap_err();
    assert_eq!(cycle.parts.hinted.lanes(), only(account));
    rename("away", "outbox_events").await.unwrap();
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Moved);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_row_that_was_not_delivered_is_sent_again_without_another_hint(pool: PgPool) {
    let account = AccountId::new();
    let mut cycle = cycle_that_relies_on_hints(pool.clone());
    append(&pool, account, 1).await;
    cycle.parts.hinted.hint(only(account));
    cycle.step(false).await.unwrap();
    assert_eq!(cycle.parts.hinted.lanes(), LaneSet::EMPTY);
    cycle.couriers.present(Route::Main).unwrap().purge();
    while cycle.flights.outstanding() > 0 {
        cycle.parts.hinted.woken().await;
        cycle.step(false).await.unwrap();
    }
    assert_eq!(cycle.parts.hinted.lanes(), only(account));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_hint_that_comes_while_its_lane_is_looked_at_is_kept(pool: PgPool) {
    let account = AccountId::new();
    let mut cycle = cycle_that_relies_on_hints(pool.clone());
    let hinted = Arc::clone(&cycle.parts.hinted);
    let mut table_held = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE outbox_events IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *table_held)
        .await
        .unwrap();
    hinted.hint(only(account));
    let hint_meanwhile = async {
        while !somebody_waits_for_a_lock(&pool).await {
            sleep(Duration::from_millis(5)).await;
        }
        hinted.hint(only(account));
        table_held.rollback().await.unwrap();
    };
    let (stepped, ()) = tokio::join!(cycle.step(false), hint_meanwhile);
    assert_eq!(stepped.unwrap(), Outcome::Idle);
    assert_eq!(hinted.lanes(), only(account));
}

async fn somebody_waits_for_a_lock(pool: &PgPool) -> bool {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_stat_activity
                         WHERE wait_event_type = 'Lock' AND datname = current_database())",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn only_a_look_at_all_lanes_shows_that_nothing_waits(pool: PgPool) {
    let mut cycle = cycle_that_relies_on_hints(pool);
    let answered_at = Some(Instant::now() + A_LONG_TIME);
    cycle.parts.broker_answered = watch::channel(answered_at).1;
    cycle.couriers.complaint = Some("refused".to_owned());
    cycle.parts.hinted.hint(only(AccountId::new()));
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Idle);
    assert_eq!(cycle.parts.hinted.lanes(), LaneSet::EMPTY);
    assert!(cycle.couriers.complaint.is_some());
    cycle.parts.hinted.hint(LaneSet::ALL);
    assert_eq!(cycle.step(false).await.unwrap(), Outcome::Idle);
    assert_eq!(cycle.couriers.complaint, None);
}

/// A test broker without an authorizer refuses nobody, so the refusals are told here.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_refusal_that_is_not_the_rows_own_fault_makes_no_dead_letter(pool: PgPool) {
    let account = AccountId::new();
    let mut cycle = cycle_that_relies_on_hints(pool.clone());
    append(&pool, account, 1).await;
    let row = SentRow {
        seq: 1,
        account_id: account.0,
        created_at: Utc::now(),
        topic: 0,
        kind: Kind::Event,
    };
    let mut refuse = async |code| {
        cycle.refused(Lane::of(account), row, code, "no".to_owned());
        cycle.settle().await.unwrap();
        let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&pool)
            .await
            .unwrap();
        (letters, cycle.troubles.reason())
    };
    for code in [
        RDKafkaErrorCode::TopicAuthorizationFailed,
        RDKafkaErrorCode::ClusterAuthorizationFailed,
        RDKafkaErrorCode::PolicyViolation,
        RDKafkaErrorCode::NotEnoughReplicas,
    ] {
        let (letters, reason) = refuse(code).await;
        assert_eq!(letters, 0, "{code:?}");
        assert!(reason.unwrap().ends_with("seq 1: no"), "{code:?}");
    }
    // The grant is there again, and the row is refused for its own sake.
    assert_eq!(
        refuse(RDKafkaErrorCode::MessageSizeTooLarge).await,
        (1, None)
    );
}
