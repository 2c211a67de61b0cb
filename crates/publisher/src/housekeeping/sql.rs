use chrono::{DateTime, Utc};
use sqlx::{Error, PgConnection};

/// What a batch found.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) walked: i64,
    pub(super) removed: i64,
    pub(super) last_seq: Option<i64>,
    pub(super) last_created_at: Option<DateTime<Utc>>,
}

/// The time so many seconds ago, by the database's clock, which also wrote the rows' times.
pub(super) async fn time_ago(
    connection: &mut PgConnection,
    seconds: f64,
) -> Result<DateTime<Utc>, Error> {
    sqlx::query_scalar!(
        r#"SELECT now() - make_interval(secs => $1) AS "time!""#,
        seconds
    )
    .fetch_one(connection)
    .await
}

/// Looks at the next rows in order of seq and removes those published before a time. The primary
/// key gives both the order and the place to go on, so a batch costs the same wherever it is.
pub(super) async fn remove_batch(
    connection: &mut PgConnection,
    after_seq: i64,
    rows_max: i64,
    published_before: DateTime<Utc>,
) -> Result<Batch, Error> {
    sqlx::query_as!(
        Batch,
        r#"WITH walked AS MATERIALIZED (
                SELECT seq, account_id, created_at
                  FROM outbox_events
                 WHERE seq > $1
                 ORDER BY seq
                 LIMIT $2
           ), removed AS (
                DELETE FROM outbox_events AS event
                 USING walked
                 WHERE event.seq = walked.seq AND event.account_id = walked.account_id
                   AND event.status = 'PUBLISHED' AND event.published_at < $3
                RETURNING event.seq
           )
           SELECT count(*) AS "walked!", max(seq) AS last_seq, max(created_at) AS last_created_at,
                  (SELECT count(*) FROM removed) AS "removed!"
             FROM walked"#,
        after_seq,
        rows_max,
        published_before
    )
    .fetch_one(connection)
    .await
}
