use chrono::{DateTime, Utc};
use common::{
    outbox::AGGREGATE_TYPE,
    types::{
        AccountId, AccountStatus, EventType, FailureReason, Lane, SCHEMA_VERSION,
        TransactionCreated, TransactionId, TransactionStatus, TransactionType,
    },
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::queue::Row;

/// What the statement found and did for one row.
pub(super) struct Written {
    /// The row was inserted, and its event with it.
    pub(super) created: bool,
    /// The time of this database transaction.
    pub(super) now: DateTime<Utc>,
    pub(super) account_status: Option<AccountStatus>,
    pub(super) account_currency: Option<String>,
    // What stood under the row's key before; all or none of these are there.
    pub(super) stored_id: Option<TransactionId>,
    pub(super) stored_amount_cents: Option<i64>,
    pub(super) stored_currency: Option<String>,
    pub(super) stored_type: Option<TransactionType>,
    pub(super) stored_status: Option<TransactionStatus>,
    pub(super) stored_failure_reason: Option<FailureReason>,
    pub(super) stored_created_at: Option<DateTime<Utc>>,
    pub(super) stored_processed_at: Option<DateTime<Utc>>,
}

/// What the statement for new keys did.
pub(super) struct Inserted {
    /// The time of this database transaction.
    pub(super) now: DateTime<Utc>,
    /// The positions, from 1, of the rows that were not inserted: their account is not there, is
    /// suspended, or holds another currency.
    pub(super) left_over: Vec<i64>,
}

/// The batch as one array a column, the shape in which `unnest` takes it.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    account_ids: Vec<Uuid>,
    amounts_cents: Vec<i64>,
    currencies: Vec<&'a str>,
    types: Vec<&'a str>,
    keys: Vec<&'a str>,
    lanes: Vec<i16>,
    payloads: Vec<String>,
}

impl<'a> Columns<'a> {
    fn of(rows: &[&'a Row]) -> Result<Self, sqlx::Error> {
        let mut columns = Self::default();
        for row in rows {
            columns
                .push(row)
                .map_err(|error| sqlx::Error::Encode(error.into()))?;
        }
        Ok(columns)
    }

    fn push(&mut self, row: &'a Row) -> Result<(), serde_json::Error> {
        let new = &row.new;
        self.ids.push(row.id.0);
        self.account_ids.push(new.account_id.0);
        self.amounts_cents.push(new.amount_cents.get());
        self.currencies.push(new.currency.as_str());
        self.types.push(new.transaction_type.as_str());
        self.keys.push(new.idempotency_key.as_str());
        self.lanes.push(Lane::of(new.account_id).number());
        self.payloads
            .push(serde_json::to_string(&TransactionCreated {
                schema_version: SCHEMA_VERSION,
                transaction_id: row.id,
                account_id: new.account_id,
                amount_cents: new.amount_cents,
                currency: new.currency,
                transaction_type: new.transaction_type,
            })?);
        Ok(())
    }
}

/// Writes a batch whose keys are expected to be new, with its events: one statement, which is a
/// transaction by itself. A key that is stored fails all of it (23505), and then [`accept`] finds
/// out which; nearly always none is, and this costs a quarter less (docs/performance.md): no key is
/// looked for before it is inserted, and no row is inserted on probation.
pub(super) async fn insert_new(
    connection: &mut PgConnection,
    topic: &str,
    rows: &[&Row],
) -> Result<Inserted, sqlx::Error> {
    let columns = Columns::of(rows)?;
    sqlx::query_as!(
        Inserted,
        r#"WITH item AS MATERIALIZED (
               SELECT item.*,
                      coalesce(account.status = 'ACTIVE' AND account.currency = item.currency, false)
                      AS accepted
                 FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[],
                             $6::text[], $7::smallint[], $8::text[]) WITH ORDINALITY
                      AS item (id, account_id, amount_cents, currency, type, idempotency_key, lane,
                               payload, position)
                 LEFT JOIN accounts account ON account.id = item.account_id
           ), inserted AS (
               INSERT INTO transactions (id, account_id, amount_cents, currency, type,
                                         idempotency_key)
               SELECT id, account_id, amount_cents, currency, type, idempotency_key
                 FROM item
                WHERE accepted
           ), announced AS (
               INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic,
                                          partition_key, aggregate_type, event_type, payload)
               SELECT id, account_id, id, lane, $9, account_id::text, $10, $11, payload::json
                 FROM item
                WHERE accepted
                ORDER BY position
           )
           SELECT now() AS "now!",
                  coalesce(array_agg(position) FILTER (WHERE NOT accepted), '{}') AS "left_over!"
             FROM item"#,
        &columns.ids,
        &columns.account_ids,
        &columns.amounts_cents,
        &columns.currencies as &[&str],
        &columns.types as &[&str],
        &columns.keys as &[&str],
        &columns.lanes,
        &columns.payloads,
        topic,
        AGGREGATE_TYPE,
        EventType::TransactionCreated.as_str(),
    )
    .fetch_one(connection)
    .await
}

/// Writes a batch, in which no (account, key) stands twice, with its events: one statement, which is
/// a transaction by itself. The answers stand in the rows' order.
pub(super) async fn accept(
    connection: &mut PgConnection,
    topic: &str,
    rows: &[&Row],
) -> Result<Vec<Written>, sqlx::Error> {
    let columns = Columns::of(rows)?;
    // The account is checked by a join: nobody deletes accounts, so a foreign key would only repeat
    // it. A key that exists is not inserted; one that a concurrent transaction commits meanwhile is
    // a serialization failure, and the retry sees it. The hashed `IN` keeps the planner from
    // joining the batch with itself row by row, and the `LIMIT` keeps the look-up of stored rows
    // from running for those just created: a look-up would only take predicate locks.
    sqlx::query_as!(
        Written,
        r#"WITH item AS MATERIALIZED (
               SELECT item.*, account.status AS account_status, account.currency AS account_currency
                 FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[],
                             $6::text[], $7::smallint[], $8::text[]) WITH ORDINALITY
                      AS item (id, account_id, amount_cents, currency, type, idempotency_key, lane,
                               payload, position)
                 LEFT JOIN accounts account ON account.id = item.account_id
           ), inserted AS (
               INSERT INTO transactions (id, account_id, amount_cents, currency, type,
                                         idempotency_key)
               SELECT id, account_id, amount_cents, currency, type, idempotency_key
                 FROM item
                WHERE account_status = 'ACTIVE' AND account_currency = currency
                ORDER BY position
                   ON CONFLICT DO NOTHING
               RETURNING id
           ), answer AS MATERIALIZED (
               SELECT item.*, id IN (SELECT id FROM inserted) AS created FROM item
           ), announced AS (
               INSERT INTO outbox_events (event_id, account_id, aggregate_id, lane, topic,
                                          partition_key, aggregate_type, event_type, payload)
               SELECT id, account_id, id, lane, $9, account_id::text, $10, $11, payload::json
                 FROM answer
                WHERE created
                ORDER BY position
           )
           SELECT answer.created AS "created!",
                  now() AS "now!",
                  answer.account_status AS "account_status?: AccountStatus",
                  answer.account_currency AS "account_currency?",
                  stored.id AS "stored_id?: TransactionId",
                  stored.amount_cents AS "stored_amount_cents?",
                  stored.currency AS "stored_currency?",
                  stored.type AS "stored_type?: TransactionType",
                  stored.status AS "stored_status?: TransactionStatus",
                  stored.failure_reason AS "stored_failure_reason?: FailureReason",
                  stored.created_at AS "stored_created_at?",
                  stored.processed_at AS "stored_processed_at?"
             FROM answer
             LEFT JOIN LATERAL (
                      SELECT *
                        FROM transactions t
                       WHERE NOT answer.created
                         AND t.account_id = answer.account_id
                         AND t.idempotency_key = answer.idempotency_key
                       LIMIT 1) stored ON true
            ORDER BY answer.position"#,
        &columns.ids,
        &columns.account_ids,
        &columns.amounts_cents,
        &columns.currencies as &[&str],
        &columns.types as &[&str],
        &columns.keys as &[&str],
        &columns.lanes,
        &columns.payloads,
        topic,
        AGGREGATE_TYPE,
        EventType::TransactionCreated.as_str(),
    )
    .fetch_all(connection)
    .await
}

/// The account of a stored row is the one it was looked up by.
pub(super) fn stored(row: &Row, written: &Written) -> Option<crate::transactions::Transaction> {
    let account_id: AccountId = row.new.account_id;
    Some(crate::transactions::Transaction {
        id: written.stored_id?,
        account_id,
        amount_cents: written.stored_amount_cents?,
        currency: written.stored_currency.clone()?,
        transaction_type: written.stored_type?,
        status: written.stored_status?,
        idempotency_key: row.new.idempotency_key.as_str().to_owned(),
        failure_reason: written.stored_failure_reason,
        created_at: written.stored_created_at?,
        processed_at: written.stored_processed_at,
    })
}
