use sqlx::PgConnection;

/// Removes a batch of events closed longer ago than that, the oldest first.
///
/// An event id is a UUID version 7, whose first 48 bits are its time in milliseconds: an event closed before
/// a moment was made before it, so the primary key alone leads to the old rows.
pub(super) async fn prune(
    connection: &mut PgConnection,
    older_than_seconds: f64,
    rows_max: i64,
) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query!(
        "WITH cutoff AS MATERIALIZED (
             SELECT now() - make_interval(secs => $1) AS moment
         ), floor AS MATERIALIZED (
             SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0')
                     || repeat('0', 20))::uuid AS id
               FROM cutoff
         ), old AS MATERIALIZED (
             SELECT event_id, account_id
               FROM processed_events
              WHERE event_id < (SELECT id FROM floor)
                AND processed_at < (SELECT moment FROM cutoff)
              ORDER BY event_id
              LIMIT $2
         )
         DELETE FROM processed_events
          USING old
          WHERE processed_events.event_id = old.event_id
            AND processed_events.account_id = old.account_id",
        older_than_seconds,
        rows_max,
    )
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}
