use sqlx::PgConnection;

/// Touches the tables that the worker needs, and reads nothing: an error says which one is missing
/// or not granted.
pub(super) async fn schema(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT 1 AS "one!"
             FROM accounts, transactions, processed_events, ledger_entries, parked_events,
                  dead_letters
            LIMIT 0"#
    )
    .fetch_optional(connection)
    .await?;
    Ok(())
}
