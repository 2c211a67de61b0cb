use chrono::{DateTime, Utc};
use futures_util::Stream;
use sqlx::{Error, PgConnection};
use uuid::Uuid;

use super::letter::Letter;

/// Session settings for the statements here.
///
/// A mark that is lost in a crash of the server is a repeat, which consumers skip, so marks need not
/// wait for the disk. And every statement here looks rows up in an index, a few among millions; the
/// planner is kept to that, whatever the statistics of a table that is now empty and now huge say.
/// Without parallel workers a LATERAL's rows come lane by lane, in the order of the lanes.
pub(crate) const SESSION_OPTIONS: [(&str, &str); 9] = [
    ("synchronous_commit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_sort", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("jit", "off"),
];

/// A row that waits to be sent.
#[derive(Debug)]
pub(super) struct PendingRow {
    pub(super) seq: i64,
    pub(super) lane: i16,
    pub(super) account_id: Uuid,
    pub(super) event_id: Uuid,
    pub(super) created_at: DateTime<Utc>,
    pub(super) topic: String,
    pub(super) partition_key: String,
    pub(super) event_type: String,
    /// None of a row that names a dead letter.
    pub(super) payload: Option<String>,
    pub(super) dead_letter_id: Option<Uuid>,
}

/// The first pending rows of each of these lanes, lane by lane, in order of seq; at most
/// `lane_rows_max` of a lane, `rows_max` in all.
///
/// No row is locked: the lanes are. Rows are found by their status and never by a cursor over seq,
/// because a lower seq may be committed later than a higher one. Each lane's rows are one range of
/// the partial index, so the cost does not depend on how many are pending behind them.
///
/// The range is said by comparing rows, because then no other index can serve the order. With
/// `lane = … ORDER BY seq` the planner could walk along the primary key, and did so under load on one
/// hot account: it read all of it once a lane, 2.4 s a claim.
///
/// Dead letters are read by a statement of their own, so that this one costs what it did without
/// them.
pub(super) fn pending<'c>(
    connection: &'c mut PgConnection,
    lanes: &'c [i16],
    lane_rows_max: i64,
    rows_max: i64,
) -> impl Stream<Item = Result<PendingRow, Error>> + 'c {
    sqlx::query_as!(
        PendingRow,
        r#"SELECT head.seq AS "seq!", head.lane AS "lane!", head.account_id AS "account_id!",
                  head.event_id AS "event_id!", head.created_at AS "created_at!",
                  head.topic AS "topic!", head.partition_key AS "partition_key!",
                  head.event_type AS "event_type!", head.payload, head.dead_letter_id
             FROM unnest($1::smallint[]) AS owned (lane)
            CROSS JOIN LATERAL (
                  SELECT seq, lane, account_id, event_id, created_at, topic, partition_key,
                         event_type, payload::text, dead_letter_id
                    FROM outbox_events
                   WHERE status = 'PENDING'
                     AND (lane, seq) >= (owned.lane, 0)
                     AND (lane, seq) < (owned.lane + 1, 0)
                   ORDER BY lane, seq
                   LIMIT $2) AS head
            LIMIT $3"#,
        lanes,
        lane_rows_max,
        rows_max
    )
    .fetch(connection)
}

/// These dead letters, in this order, one look-up each; one that does not exist is left out. The order is
/// that of a nested loop, which the limit makes the only plan there is.
pub(super) fn letters<'c>(
    connection: &'c mut PgConnection,
    ids: &'c [Uuid],
    account_ids: &'c [Uuid],
) -> impl Stream<Item = Result<Letter, Error>> + 'c {
    sqlx::query_as!(
        Letter,
        r#"SELECT wanted.position AS "position!", letter.id AS "id!", source_topic AS "source_topic!",
                  source_partition, source_offset, recorded_at, error_class AS "error_class!",
                  error_stage AS "error_stage!", error_message AS "error_message!",
                  attempts AS "attempts!", first_failed_at, replay_count AS "replay_count!", key, value,
                  headers::text AS "headers!"
             FROM unnest($1::uuid[], $2::uuid[])
                  WITH ORDINALITY AS wanted (id, account_id, position)
            CROSS JOIN LATERAL (
                  SELECT * FROM dead_letters
                   WHERE id = wanted.id AND account_id = wanted.account_id
                   LIMIT 1) AS letter"#,
        ids,
        account_ids
    )
    .fetch(connection)
}

/// Marks acknowledged rows as published; the answer is how many still were pending. The others were
/// marked by another owner of their lane.
///
/// The guard must not read `status = 'PENDING'`: that would offer the planner the index of pending
/// rows, which looks empty after a vacuum, and it would read all of it against every row to mark.
/// (Seen: 20,000 rows pending after an outage, and no mark within the statement timeout any more.)
pub(super) async fn mark_published(
    connection: &mut PgConnection,
    seqs: &[i64],
    account_ids: &[Uuid],
) -> Result<u64, Error> {
    let marked = sqlx::query!(
        "UPDATE outbox_events AS event
            SET status = 'PUBLISHED', published_at = now(),
                publish_attempts = event.publish_attempts + 1, last_error = NULL
           FROM unnest($1::bigint[], $2::uuid[]) AS acknowledged (seq, account_id)
          WHERE event.seq = acknowledged.seq AND event.account_id = acknowledged.account_id
            AND event.status <> 'PUBLISHED'",
        seqs,
        account_ids
    )
    .execute(connection)
    .await?;
    Ok(marked.rows_affected())
}

/// Removes rows that are not marked: acknowledged ones at once, where published rows are not kept at
/// all, and those that `resend` writes anew. The answer is how many were there.
pub(crate) async fn remove_unmarked(
    connection: &mut PgConnection,
    seqs: &[i64],
    account_ids: &[Uuid],
) -> Result<u64, Error> {
    let removed = sqlx::query!(
        "DELETE FROM outbox_events AS event
          USING unnest($1::bigint[], $2::uuid[]) AS leaving (seq, account_id)
          WHERE event.seq = leaving.seq AND event.account_id = leaving.account_id
            AND event.status <> 'PUBLISHED'",
        seqs,
        account_ids
    )
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}

/// Writes on a row why it cannot be sent. Whether it is still there and pending is the answer.
pub(super) async fn record_refusal(
    connection: &mut PgConnection,
    seq: i64,
    account_id: Uuid,
    reason: &str,
) -> Result<bool, Error> {
    let recorded = sqlx::query!(
        "UPDATE outbox_events
            SET publish_attempts = publish_attempts + 1, last_error = $3
          WHERE seq = $1 AND account_id = $2 AND status <> 'PUBLISHED'",
        seq,
        account_id,
        reason
    )
    .execute(connection)
    .await?;
    Ok(recorded.rows_affected() == 1)
}
