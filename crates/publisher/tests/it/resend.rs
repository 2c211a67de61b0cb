use std::time::Duration;

use common::outbox::{self, OutboxEvent};
use common::types::{
    AccountId, AmountCents, Currency, EventId, EventType, Lane, SCHEMA_VERSION, TransactionCreated,
    TransactionId, TransactionType,
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::World;

async fn accept(
    world: &World,
    account: AccountId,
    minutes_ago: i32,
    status: &str,
) -> TransactionCreated {
    let transaction = TransactionCreated {
        schema_version: SCHEMA_VERSION,
        transaction_id: TransactionId::new(),
        account_id: account,
        amount_cents: AmountCents::try_from(i64::MAX).unwrap(),
        currency: "EUR".parse::<Currency>().unwrap(),
        transaction_type: TransactionType::Credit,
    };
    sqlx::query(
        "INSERT INTO transactions (id, account_id, amount_cents, currency, type, idempotency_key,
                                   status, failure_reason, processed_at, created_at)
         VALUES ($1, $2, $3, 'EUR', 'CREDIT', $4, $5,
                 CASE $5 WHEN 'FAILED' THEN 'account_suspended' END,
                 CASE WHEN $5 IN ('PROCESSED', 'FAILED') THEN now() END,
                 now() - make_interval(mins => $6))",
    )
    .bind(transaction.transaction_id)
    .bind(account)
    .bind(transaction.amount_cents)
    .bind(Uuid::new_v4().to_string())
    .bind(status)
    .bind(minutes_ago)
    .execute(&world.pool)
    .await
    .unwrap();
    transaction
}

/// As the api does.
async fn append_created(world: &World, transaction: &TransactionCreated) {
    let event = OutboxEvent {
        event_id: EventId::from(transaction.transaction_id),
        account_id: transaction.account_id,
        transaction_id: transaction.transaction_id,
        event_type: EventType::TransactionCreated,
        payload: serde_json::to_string(transaction).unwrap(),
    };
    let mut connection = world.pool.acquire().await.unwrap();
    outbox::insert(&mut connection, &world.transactions, &[event])
        .await
        .unwrap();
}

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct OutboxRow {
    event_id: EventId,
    account_id: AccountId,
    aggregate_id: TransactionId,
    lane: i16,
    topic: String,
    partition_key: String,
    aggregate_type: String,
    event_type: String,
    payload: String,
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn resend_rebuilds_the_events_of_old_pending_transactions_in_order(pool: PgPool) {
    let world = World::new(pool);
    let account = AccountId::new();
    // Ids are drawn in another order than the times say, as several apis may do.
    let later = accept(&world, account, 20, "PENDING").await;
    let earlier = accept(&world, account, 30, "PENDING").await;
    accept(&world, AccountId::new(), 5, "PENDING").await;
    for status in ["PROCESSED", "FAILED"] {
        accept(&world, account, 30, status).await;
    }
    let database = world.settings(&[]).database_url.plain();
    let ten_minutes = Duration::from_mins(10);
    let resent = publisher::resend(database, &world.transactions, ten_minutes)
        .await
        .unwrap();
    assert_eq!(resent, 2);
    let rows: Vec<OutboxRow> = sqlx::query_as(
        "SELECT event_id, account_id, aggregate_id, lane, topic, partition_key, aggregate_type,
                event_type, payload::text FROM outbox_events ORDER BY seq",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let expected = [earlier, later].map(|transaction| OutboxRow {
        event_id: EventId::from(transaction.transaction_id),
        account_id: account,
        aggregate_id: transaction.transaction_id,
        lane: Lane::of(account).number(),
        topic: world.transactions.clone(),
        partition_key: account.to_string(),
        aggregate_type: "transaction".to_owned(),
        event_type: "transaction.created".to_owned(),
        // What the api writes, byte for byte.
        payload: serde_json::to_string(&transaction).unwrap(),
    });
    assert_eq!(rows, expected);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn resend_writes_more_events_than_one_chunk_in_the_order_of_acceptance(pool: PgPool) {
    let world = World::new(pool);
    sqlx::query(
        "INSERT INTO transactions (id, account_id, amount_cents, currency, type, idempotency_key,
                                   created_at)
         SELECT gen_random_uuid(), gen_random_uuid(), n, 'USD', 'DEBIT', 'k',
                now() - make_interval(mins => n)
           FROM generate_series(1, 2500) AS n",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let database = world.settings(&[]).database_url.plain();
    let resent = publisher::resend(database, &world.transactions, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(resent, 2_500);
    let amounts: Vec<i64> = sqlx::query_scalar(
        "SELECT (payload ->> 'amount_cents')::bigint FROM outbox_events ORDER BY seq",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert_eq!(amounts, (1..=2_500).rev().collect::<Vec<i64>>());
}

/// As after a restore to an earlier point: the oldest transaction's row says PUBLISHED, the younger
/// ones' rows wait.
#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn resend_puts_younger_transactions_of_the_account_behind(pool: PgPool) {
    let world = World::new(pool);
    let (account, other) = (AccountId::new(), AccountId::new());
    let oldest = accept(&world, account, 30, "PENDING").await;
    let second = accept(&world, account, 20, "PENDING").await;
    let youngest = accept(&world, account, 1, "PENDING").await;
    let processed = accept(&world, account, 40, "PROCESSED").await;
    let others = accept(&world, other, 1, "PENDING").await;
    for transaction in [&oldest, &processed, &second, &youngest, &others, &second] {
        append_created(&world, transaction).await;
    }
    let mark = "UPDATE outbox_events SET status = 'PUBLISHED', published_at = now() WHERE seq = 1";
    sqlx::query(mark).execute(&world.pool).await.unwrap();
    let result = "UPDATE outbox_events SET event_type = 'transaction.processed' WHERE seq = 2";
    sqlx::query(result).execute(&world.pool).await.unwrap();

    let database = world.settings(&[]).database_url.plain();
    let ten_minutes = Duration::from_mins(10);
    let resent = publisher::resend(database, &world.transactions, ten_minutes).await;
    assert_eq!(resent.unwrap(), 3);
    let waiting: Vec<Uuid> = sqlx::query_scalar(
        "SELECT aggregate_id FROM outbox_events WHERE status = 'PENDING' ORDER BY seq",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let expected = [&processed, &others, &oldest, &second, &youngest];
    assert_eq!(
        waiting,
        expected.map(|transaction| transaction.transaction_id.0)
    );
    assert_eq!(world.count("status = 'PUBLISHED'").await, 1);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn resend_brings_back_a_replayed_event_and_leaves_parked_ones_and_dead_letters(pool: PgPool) {
    let world = World::new(pool);
    let account = AccountId::new();
    let pending = accept(&world, account, 20, "PENDING").await;
    let replayed = accept(&world, account, 30, "PROCESSING").await;
    let dead = accept(&world, account, 40, "PROCESSING").await;
    sqlx::query("UPDATE transactions SET failure_reason = 'dead_lettered' WHERE id = $1")
        .bind(dead.transaction_id)
        .execute(&world.pool)
        .await
        .unwrap();
    let parked = accept(&world, account, 50, "PROCESSING").await;
    sqlx::query(
        "INSERT INTO parked_events (account_id, event_id, source_topic, source_partition,
                                    source_offset, headers)
         VALUES ($1, $2, 'transactions', 0, 0, '[]')",
    )
    .bind(account)
    .bind(parked.transaction_id)
    .execute(&world.pool)
    .await
    .unwrap();
    let database = world.settings(&[]).database_url.plain();
    let ten_minutes = Duration::from_mins(10);
    let resent = publisher::resend(database, &world.transactions, ten_minutes).await;
    assert_eq!(resent.unwrap(), 2);
    let waiting: Vec<Uuid> =
        sqlx::query_scalar("SELECT aggregate_id FROM outbox_events ORDER BY seq")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    assert_eq!(
        waiting,
        [&replayed, &pending].map(|transaction| transaction.transaction_id.0)
    );
}
