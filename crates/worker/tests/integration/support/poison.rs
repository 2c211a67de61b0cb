//! A database that refuses what it should not: triggers by the superuser of the test's own database.

use sqlx::PgPool;
use uuid::Uuid;

/// Makes the database refuse ledger entries of chosen accounts and transactions; none to begin with.
pub(crate) async fn prepare(pool: &PgPool) {
    run(
        pool,
        "CREATE TABLE poisoned (id uuid PRIMARY KEY);
         GRANT SELECT ON poisoned TO postonce_worker;
         CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF EXISTS (SELECT FROM poisoned WHERE id IN (NEW.account_id, NEW.transaction_id)) THEN
                 RAISE EXCEPTION 'poisoned: %', NEW.transaction_id;
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse_poison BEFORE INSERT ON ledger_entries
                FOR EACH ROW EXECUTE FUNCTION refuse_poison()",
    )
    .await;
}

pub(crate) async fn add(pool: &PgPool, id: Uuid) {
    sqlx::query("INSERT INTO poisoned VALUES ($1)")
        .bind(id)
        .execute(pool)
        .await
        .unwrap();
}

pub(crate) async fn heal(pool: &PgPool) {
    run(pool, "DELETE FROM poisoned").await;
}

/// Runs statements of the test.
pub(crate) async fn run(pool: &PgPool, statements: &'static str) {
    sqlx::raw_sql(statements).execute(pool).await.unwrap();
}
