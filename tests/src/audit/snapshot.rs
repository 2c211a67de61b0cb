use std::collections::BTreeMap;

use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{kafka::Record, stack::Stack};

/// The books at one moment, as far as they have to agree.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All accounts.
    pub accounts: Vec<AccountRow>,
    /// All transactions.
    pub transactions: Vec<TransactionRow>,
    /// All entries, by account and number.
    pub entries: Vec<EntryRow>,
    /// All dead letters.
    pub dead_letters: Vec<DeadLetterRow>,
    /// How many events are parked, by account.
    pub parked: BTreeMap<Uuid, i64>,
    /// All records of the results topic, by partition and offset.
    pub results: Vec<Record>,
}

/// A row of `accounts`.
#[derive(Clone, Debug)]
pub struct AccountRow {
    /// Its id.
    pub id: Uuid,
    /// The only currency it holds.
    pub currency: String,
    /// Its balance.
    pub balance_cents: i64,
    /// How many entries it has, as the row says.
    pub entry_count: i64,
    /// How many of its events are parked, as the row says.
    pub parked_count: i32,
}

/// A row of `dead_letters`, without its bytes.
#[derive(Clone, Debug)]
pub struct DeadLetterRow {
    /// Its id.
    pub id: Uuid,
    /// The transaction that waits for it, if one does.
    pub transaction_id: Option<Uuid>,
    /// Why it was given up.
    pub error_class: String,
    /// DEAD, REPLAYED or DISCARDED.
    pub state: String,
    /// How often it died again.
    pub replay_count: i32,
}

/// A row of `transactions`.
#[derive(Clone, Debug)]
pub struct TransactionRow {
    /// Its id.
    pub id: Uuid,
    /// Its account.
    pub account_id: Uuid,
    /// Its amount.
    pub amount_cents: i64,
    /// Its currency.
    pub currency: String,
    /// CREDIT or DEBIT.
    pub kind: String,
    /// How far it has come.
    pub status: String,
    /// Its idempotency key.
    pub idempotency_key: String,
    /// Why it was refused.
    pub failure_reason: Option<String>,
}

/// A row of `ledger_entries`.
#[derive(Clone, Debug)]
pub struct EntryRow {
    /// Its account.
    pub account_id: Uuid,
    /// Its number in the account.
    pub entry_no: i64,
    /// What it posts.
    pub transaction_id: Uuid,
    /// The amount with its sign.
    pub amount_cents: i64,
    /// The balance behind it.
    pub balance_after_cents: i64,
}

impl Snapshot {
    /// Reads the books of a stack at whose services nothing is under way.
    pub(crate) async fn of(stack: &Stack) -> Self {
        let database = stack.database.superuser();
        let results = if stack.kafka.partitions(&stack.results_topic) == 0 {
            Vec::new()
        } else {
            stack.kafka.read(&stack.results_topic)
        };
        Self {
            results,
            ..Self::of_database(database).await
        }
    }

    /// Reads what stands in the database.
    pub async fn of_database(database: &PgPool) -> Self {
        let accounts =
            "SELECT id, currency, balance_cents, entry_count, parked_count FROM accounts";
        let dead_letters =
            "SELECT id, transaction_id, error_class, state, replay_count FROM dead_letters";
        let parked = "SELECT account_id, count(*) FROM parked_events GROUP BY account_id";
        let transactions = "SELECT id, account_id, amount_cents, currency, type, status,
                                   idempotency_key, failure_reason FROM transactions";
        let entries = "SELECT account_id, entry_no, transaction_id, amount_cents,
                              balance_after_cents
                         FROM ledger_entries ORDER BY account_id, entry_no";
        Self {
            accounts: rows(database, accounts, AccountRow::of).await,
            transactions: rows(database, transactions, TransactionRow::of).await,
            entries: rows(database, entries, EntryRow::of).await,
            dead_letters: rows(database, dead_letters, DeadLetterRow::of).await,
            parked: rows(database, parked, |row| (row.get(0), row.get(1)))
                .await
                .into_iter()
                .collect(),
            results: Vec::new(),
        }
    }
}

async fn rows<T>(database: &PgPool, sql: &'static str, row: impl Fn(&PgRow) -> T) -> Vec<T> {
    let found = sqlx::query(sql).fetch_all(database).await.unwrap();
    found.iter().map(row).collect()
}

impl AccountRow {
    fn of(row: &PgRow) -> Self {
        Self {
            id: row.get("id"),
            currency: row.get("currency"),
            balance_cents: row.get("balance_cents"),
            entry_count: row.get("entry_count"),
            parked_count: row.get("parked_count"),
        }
    }
}

impl DeadLetterRow {
    fn of(row: &PgRow) -> Self {
        Self {
            id: row.get("id"),
            transaction_id: row.get("transaction_id"),
            error_class: row.get("error_class"),
            state: row.get("state"),
            replay_count: row.get("replay_count"),
        }
    }

    /// Whether a transaction waits for it.
    pub(crate) fn holds_its_transaction(&self) -> bool {
        self.state == "DEAD" && self.is_of_an_event()
    }

    /// Whether somebody ended its transaction by discarding it.
    pub(crate) fn ended_its_transaction(&self) -> bool {
        self.state == "DISCARDED" && self.is_of_an_event()
    }

    /// Whether it is of an event that could not be applied or sent: other letters hold no transaction.
    fn is_of_an_event(&self) -> bool {
        let genuine = ["retries_exhausted", "refused_by_broker"];
        genuine.contains(&self.error_class.as_str())
    }

    /// Whether somebody sent it again or ended it: then its place in its account's order is another.
    pub(crate) fn left_the_order(&self) -> bool {
        self.state != "DEAD" || self.replay_count > 0
    }
}

impl TransactionRow {
    fn of(row: &PgRow) -> Self {
        Self {
            id: row.get("id"),
            account_id: row.get("account_id"),
            amount_cents: row.get("amount_cents"),
            currency: row.get("currency"),
            kind: row.get("type"),
            status: row.get("status"),
            idempotency_key: row.get("idempotency_key"),
            failure_reason: row.get("failure_reason"),
        }
    }
}

impl EntryRow {
    fn of(row: &PgRow) -> Self {
        Self {
            account_id: row.get("account_id"),
            entry_no: row.get("entry_no"),
            transaction_id: row.get("transaction_id"),
            amount_cents: row.get("amount_cents"),
            balance_after_cents: row.get("balance_after_cents"),
        }
    }
}
