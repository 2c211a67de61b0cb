//! Events that cannot be applied: a trigger that raises for some transactions, by their own ids.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long a statement of the suite's own is tried: the server may be one of those that were killed.
const PATIENCE: Duration = Duration::from_mins(3);

/// Of 256 transactions two fail for ever, and two more for their first two seconds: those may heal by
/// a retry. The id alone decides, so the trigger reads no table and takes no predicate lock.
const INSTALL: &str = "
CREATE FUNCTION chaos_poison() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    lot integer := get_byte(uuid_send(NEW.transaction_id), 15);
    made_ms bigint := ('x' || left(replace(NEW.transaction_id::text, '-', ''), 12))::bit(48)::bigint;
BEGIN
    IF lot < 2 OR (lot < 4 AND extract(epoch FROM clock_timestamp()) * 1000 < made_ms + 2000) THEN
        RAISE EXCEPTION 'poison';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER chaos_poison BEFORE INSERT ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION chaos_poison();
";

/// Whether the trigger may have raised for this transaction.
pub(super) fn is_poison(transaction: Uuid) -> bool {
    transaction.as_bytes()[15] < 4
}

/// From now on some events cannot be applied.
pub(super) async fn install(database: &PgPool) {
    insist(database, INSTALL).await;
}

/// From now on all events can be applied.
pub(super) async fn remove(database: &PgPool) {
    insist(database, "DROP TRIGGER chaos_poison ON ledger_entries").await;
}

/// Runs a statement of the suite's own until it succeeds.
///
/// # Panics
/// If it does not for minutes.
pub(super) async fn insist(database: &PgPool, sql: &'static str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sqlx::raw_sql(sql).execute(database).await {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "{sql}: {error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}
