use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::KeyHash;

pub(super) struct KeyRow {
    pub(super) name: String,
    pub(super) key_sha256: Vec<u8>,
    pub(super) scopes: Vec<String>,
}

/// The keys that may be used now, by the database's clock, which every api process shares.
pub(super) async fn live_keys(connection: &mut PgConnection) -> Result<Vec<KeyRow>, sqlx::Error> {
    sqlx::query_as!(
        KeyRow,
        "SELECT name, key_sha256, scopes
           FROM api_keys
          WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
    )
    .fetch_all(connection)
    .await
}

/// Whether a session that is opened now can read and not write: on a standby, or by
/// `default_transaction_read_only`.
pub(super) async fn is_read_only(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean
                  AS "is_read_only!""#,
    )
    .fetch_one(connection)
    .await
}

pub(super) async fn insert_key(
    connection: &mut PgConnection,
    name: &str,
    hash: KeyHash,
    scopes: &[String],
    expires_in_days: Option<i32>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO api_keys (id, name, key_sha256, scopes, expires_at)
         VALUES ($1, $2, $3, $4, now() + make_interval(days => $5))",
        Uuid::now_v7(),
        name,
        &hash.0[..],
        scopes,
        expires_in_days,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Ends a key; false if there is none of that name. A key that was revoked before stays so since
/// then.
pub(super) async fn revoke_key(
    connection: &mut PgConnection,
    name: &str,
) -> Result<bool, sqlx::Error> {
    let revoked = sqlx::query!(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE name = $1",
        name,
    )
    .execute(connection)
    .await?
    .rows_affected();
    Ok(revoked == 1)
}

pub(super) struct ListedKey {
    pub(super) name: String,
    pub(super) scopes: Vec<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) revoked_at: Option<DateTime<Utc>>,
    pub(super) live: bool,
}

pub(super) async fn list_keys(
    connection: &mut PgConnection,
) -> Result<Vec<ListedKey>, sqlx::Error> {
    sqlx::query_as!(
        ListedKey,
        r#"SELECT name, scopes, created_at, expires_at, revoked_at,
                  revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS "live!"
             FROM api_keys
            ORDER BY created_at, name"#,
    )
    .fetch_all(connection)
    .await
}
