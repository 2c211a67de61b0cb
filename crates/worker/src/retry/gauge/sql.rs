use sqlx::PgConnection;

/// Counts parked events, up to a limit.
pub(super) async fn count(
    connection: &mut PgConnection,
    count_max: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "events!" FROM (SELECT FROM parked_events LIMIT $1) AS counted"#,
        count_max,
    )
    .fetch_one(connection)
    .await
}
