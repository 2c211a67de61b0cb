use sqlx::PgConnection;
use uuid::Uuid;

/// How many ids are handed to the server at once.
const IDS_A_STATEMENT: usize = 100_000;

/// Something that must not be, and the statement that counts how often it is.
pub(super) struct Rule {
    /// In words, behind the count.
    pub(super) what: &'static str,
    /// One row, one bigint.
    pub(super) counts: &'static str,
}

/// All there are.
pub(super) const TRANSACTIONS: &str = "SELECT count(*) FROM transactions";
/// Those rejected by a business rule.
pub(super) const REJECTED: &str = "SELECT count(*) FROM transactions WHERE status = 'FAILED'";

/// Those that wait for somebody to replay or discard their events.
pub(super) const DEAD_LETTERED: &str = "SELECT count(*) FROM transactions
    WHERE status = 'PROCESSING' AND failure_reason = 'dead_lettered'";

/// Events that no publisher has sent.
pub(super) const WAITING_EVENTS: &str =
    "SELECT count(*) FROM outbox_events WHERE status = 'PENDING'";

/// What must hold at any time.
pub(super) const ALWAYS: [Rule; 6] = [
    Rule {
        what: "acknowledged transactions that do not exist",
        counts: "SELECT count(*) FROM acknowledged
                   LEFT JOIN transactions ON transactions.id = acknowledged.id
                  WHERE transactions.id IS NULL",
    },
    Rule {
        what: "ids that were acknowledged more than once",
        counts: "SELECT count(*) - count(DISTINCT id) FROM acknowledged",
    },
    Rule {
        what: "transactions and entries that are not each other's: PROCESSED without an entry, \
               an entry of none that is PROCESSED, or another amount",
        counts: "SELECT count(*)
                   FROM transactions
                   FULL JOIN ledger_entries entry
                     ON entry.transaction_id = transactions.id
                    AND entry.account_id = transactions.account_id
                  WHERE (status = 'PROCESSED') IS DISTINCT FROM (entry.transaction_id IS NOT NULL)
                     OR entry.amount_cents
                        <> CASE type WHEN 'CREDIT' THEN transactions.amount_cents
                                     ELSE -transactions.amount_cents END",
    },
    Rule {
        what: "entries more or fewer than PROCESSED transactions",
        counts: "SELECT abs((SELECT count(*) FROM ledger_entries)
                          - (SELECT count(*) FROM transactions WHERE status = 'PROCESSED'))",
    },
    Rule {
        what: "entries out of their chain: a number that is not the next, or a balance that does \
               not follow from the one before",
        counts: "SELECT count(*) FROM (
                     SELECT entry_no, balance_after_cents,
                            row_number() OVER account AS expected_no,
                            sum(amount_cents) OVER account AS expected_balance
                       FROM ledger_entries
                     WINDOW account AS (PARTITION BY account_id ORDER BY entry_no)) entry
                  WHERE entry_no <> expected_no OR balance_after_cents <> expected_balance",
    },
    Rule {
        what: "accounts whose balance or count is not that of their entries",
        counts: "SELECT count(*)
                   FROM accounts
                   FULL JOIN (SELECT account_id, sum(amount_cents) AS balance, count(*) AS entries
                                FROM ledger_entries GROUP BY account_id) total
                     ON total.account_id = accounts.id
                  WHERE balance_cents IS DISTINCT FROM coalesce(balance, 0)
                     OR entry_count IS DISTINCT FROM coalesce(entries, 0)",
    },
];

/// What must hold when everything that was accepted has come to its end. As all acknowledged transactions
/// exist and none may be rejected, each of them is PROCESSED then, but those that are dead-lettered.
pub(super) const WHEN_FINISHED: [Rule; 2] = [
    Rule {
        what: "transactions that have not come to their end: neither PROCESSED nor rejected nor \
               dead-lettered",
        counts: "SELECT count(*) FROM transactions
                  WHERE status NOT IN ('PROCESSED', 'FAILED')
                    AND (status, failure_reason)
                        IS DISTINCT FROM ('PROCESSING', 'dead_lettered')",
    },
    Rule {
        what: "events that were not sent",
        counts: WAITING_EVENTS,
    },
];

/// What must hold where nothing was done but to accept.
pub(super) const WHEN_ONLY_ACCEPTED: [Rule; 1] = [Rule {
    what: "acknowledged transactions whose event does not wait to be sent",
    counts: "SELECT count(*) FROM acknowledged
               LEFT JOIN outbox_events
                 ON outbox_events.event_id = acknowledged.id AND outbox_events.status = 'PENDING'
              WHERE outbox_events.event_id IS NULL",
}];

/// Gives the session room to hash and sort millions of rows, and a table for what was acknowledged.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let statements = "SET work_mem = '256MB';
                      DROP TABLE IF EXISTS acknowledged;
                      CREATE TEMPORARY TABLE acknowledged (id uuid NOT NULL)";
    sqlx::raw_sql(statements).execute(connection).await?;
    Ok(())
}

/// Puts the acknowledged ids into that table.
pub(super) async fn remember(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<(), sqlx::Error> {
    for ids in ids.chunks(IDS_A_STATEMENT) {
        sqlx::query("INSERT INTO acknowledged SELECT unnest($1::uuid[])")
            .bind(ids)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::raw_sql("ANALYZE acknowledged")
        .execute(connection)
        .await?;
    Ok(())
}

/// What a statement counts.
pub(super) async fn count(
    connection: &mut PgConnection,
    statement: &'static str,
) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(statement).fetch_one(connection).await?;
    Ok(count.unsigned_abs())
}
