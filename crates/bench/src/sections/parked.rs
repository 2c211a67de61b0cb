use std::time::Duration;

use e2e::Kind;
use sqlx::{PgPool, Row as _};
use tokio::time::sleep;

use super::Frame;
use crate::{
    backlog::finished,
    figures::float,
    report::{Budget, Row, Section},
    rig::{Filling, Rig, settle},
    settings::RunSettings,
};

/// How long the worker is left with events that cannot be applied.
const STUCK: Duration = Duration::from_secs(20);

/// Transactions whose events are parked, the accounts' turn after turn; the first of each is due.
const FILL: &str = "
    WITH made AS MATERIALIZED (
        SELECT number, gen_random_uuid() AS id, account.id AS account_id
          FROM generate_series(0, $1::bigint - 1) AS number
          JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM accounts) AS account
            ON account.place = number % $2
         ORDER BY number
    ), transaction AS (
        INSERT INTO transactions (id, account_id, amount_cents, currency, type, status, idempotency_key)
        SELECT id, account_id, 100, 'EUR', 'CREDIT', 'PROCESSING', id::text FROM made
    )
    INSERT INTO parked_events (account_id, event_id, source_topic, source_partition, source_offset, key,
                               value, headers, attempts, next_attempt_at, first_failed_at, last_error)
    SELECT account_id, id, 'transactions', 0, number, account_id::text::bytea,
           convert_to(json_build_object('schema_version', 1, 'transaction_id', id, 'account_id', account_id,
                                        'amount_cents', 100, 'currency', 'EUR', 'type', 'CREDIT')::text,
                      'UTF8'),
           json_build_array(json_build_array('ce_id', id), json_build_array('ce_type', 'transaction.created'),
                            json_build_array('ce_source', '/postonce')),
           (number < $2)::int, CASE WHEN number < $2 THEN now() END,
           CASE WHEN number < $2 THEN now() END, CASE WHEN number < $2 THEN 'filled in' END
      FROM made ORDER BY number";
const COUNTS: &str = "
    UPDATE accounts SET parked_count = queue.events
      FROM (SELECT account_id, count(*)::int AS events FROM parked_events GROUP BY account_id) AS queue
     WHERE accounts.id = queue.account_id";
const BREAK: &str = "
    CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'broken'; END $$;
    CREATE TRIGGER broken BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION broken()";
const MEND: &str = "DROP TRIGGER broken ON ledger_entries";

/// A worker before a great many parked events: first they cannot be applied, then they can.
pub(super) async fn run(settings: &RunSettings) -> anyhow::Result<Section> {
    let frame = Frame {
        name: "parked",
        filling: Filling::accounts(settings.accounts),
        services: &[Kind::Publisher],
        places: &settings.places,
    };
    let body = async |rig: &mut Rig, section: &mut Section| {
        let events = settings.parked_events;
        fill(rig.database(), events, settings.accounts).await?;
        settle(rig.database()).await?;
        rig.expected.before += events;
        sqlx::raw_sql(BREAK).execute(rig.database()).await?;
        rig.launch(Kind::Worker).await;
        sleep(STUCK).await;
        let dead = rig
            .stack
            .database
            .count("SELECT count(*) FROM dead_letters")
            .await;
        let stuck =
            format!("{dead} of {events} given up while none could be applied for {STUCK:?}");
        section.notes.push(stuck);
        let window = rig.window().await?;
        sqlx::raw_sql(MEND).execute(rig.database()).await?;
        let applied = async |rig: &Rig| finished(rig.services()).await;
        rig.reach(
            "parked events applied",
            events - dead.unsigned_abs(),
            applied,
        )
        .await?;
        section
            .costs
            .push(rig.cost("draining parked events", &window, events).await?);
        section.rows.push(Row::new(
            format!(
                "draining {events} parked events of {} accounts",
                settings.accounts
            ),
            drained_per_second(rig.database()).await?,
            "/s",
            Budget::None,
        ));
        rig.expected.dead_lettered = dead.unsigned_abs();
        rig.expected.finished = true;
        Ok(())
    };
    frame.run(body).await
}

async fn fill(database: &PgPool, events: u64, accounts: usize) -> anyhow::Result<()> {
    sqlx::query(FILL)
        .bind(i64::try_from(events)?)
        .bind(i64::try_from(accounts)?)
        .execute(database)
        .await?;
    sqlx::raw_sql(COUNTS).execute(database).await?;
    Ok(())
}

/// From the first one's transaction to the last one's, by the times that they wrote.
async fn drained_per_second(database: &PgPool) -> anyhow::Result<f64> {
    let span = "SELECT count(*), extract(epoch FROM max(processed_at) - min(processed_at))::float8
                  FROM transactions WHERE amount_cents = 100 AND status = 'PROCESSED'";
    let row = sqlx::query(span).fetch_one(database).await?;
    let (events, seconds): (i64, f64) = (row.get(0), row.get(1));
    Ok(float(events.unsigned_abs()) / seconds.max(0.001))
}
