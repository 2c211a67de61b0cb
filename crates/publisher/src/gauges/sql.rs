use sqlx::{Error, PgConnection};

// The order of these statements is that of the index of pending rows, and of no other: see the claim.

/// How many rows are pending, counted up to a limit: a backlog must not make its own gauge slow.
pub(super) async fn count_pending(
    connection: &mut PgConnection,
    count_max: i64,
) -> Result<i64, Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
             FROM (SELECT FROM outbox_events WHERE status = 'PENDING'
                    ORDER BY lane, seq LIMIT $1) AS pending"#,
        count_max
    )
    .fetch_one(connection)
    .await
}

/// The age of the oldest pending row in seconds, 0 if there is none. Each lane's first row is its
/// oldest, so 64 look-ups suffice.
pub(super) async fn oldest_pending_age_seconds(
    connection: &mut PgConnection,
) -> Result<f64, Error> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(extract(epoch FROM now() - min(head.created_at)), 0)::float8 AS "age!"
             FROM generate_series(0, 63) AS lane (number)
            CROSS JOIN LATERAL (
                  SELECT created_at
                    FROM outbox_events
                   WHERE status = 'PENDING'
                     AND (lane, seq) >= (lane.number, 0) AND (lane, seq) < (lane.number + 1, 0)
                   ORDER BY lane, seq
                   LIMIT 1) AS head"#
    )
    .fetch_one(connection)
    .await
}

/// The size of the table with its indexes and oversized values, bytes.
pub(super) async fn table_bytes(connection: &mut PgConnection) -> Result<i64, Error> {
    sqlx::query_scalar!(r#"SELECT pg_total_relation_size('outbox_events') AS "bytes!""#)
        .fetch_one(connection)
        .await
}
