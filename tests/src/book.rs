use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use common::types::TransactionType;
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

/// A payment instruction as a test sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The account it is for.
    pub account: Uuid,
    /// Minor units of the currency.
    pub amount_cents: i64,
    /// ISO 4217.
    pub currency: &'static str,
    /// Whether the amount is added or taken.
    pub kind: TransactionType,
    /// The idempotency key.
    pub key: String,
}

impl Payment {
    /// EUR to an account, under a key of its own.
    #[must_use]
    pub fn credit(account: Uuid, amount_cents: i64) -> Self {
        Self {
            account,
            amount_cents,
            currency: "EUR",
            kind: TransactionType::Credit,
            key: Uuid::new_v4().to_string(),
        }
    }

    /// EUR from an account, under a key of its own.
    #[must_use]
    pub fn debit(account: Uuid, amount_cents: i64) -> Self {
        Self {
            kind: TransactionType::Debit,
            ..Self::credit(account, amount_cents)
        }
    }

    /// The request's body, without the key.
    #[must_use]
    pub fn body(&self) -> Value {
        json!({
            "account_id": self.account,
            "amount_cents": self.amount_cents,
            "currency": self.currency,
            "type": self.kind,
        })
    }

    /// The body with the key in it, as a batch wants it.
    #[must_use]
    pub fn item(&self) -> Value {
        let mut item = self.body();
        item["idempotency_key"] = self.key.clone().into();
        item
    }
}

/// What a test knows of a payment that it sent, however often.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its content.
    pub payment: Payment,
    /// Before it was sent for the first time.
    pub first_sent: Instant,
    /// After the first acknowledgement arrived (202 or 200), and the id it named.
    pub acknowledged: Option<(Instant, Uuid)>,
    /// How often it was answered 202: at most once, if keys do what they promise.
    pub created: u32,
    /// How many sendings had no answer that says what became of them.
    pub open: u32,
    /// The key of the payment for the same account that stood before it in the batch which created both.
    pub behind: Option<String>,
}

/// A test's own record of what it sent and what it was told: the auditor holds the system to it.
#[derive(Clone, Debug, Default)]
pub struct Book(Arc<Mutex<BTreeMap<(Uuid, String), Sent>>>);

impl Book {
    /// A payment goes out, now.
    pub fn sending(&self, payment: &Payment) {
        let mut entries = self.lock();
        let entry = entries
            .entry((payment.account, payment.key.clone()))
            .or_insert_with(|| Sent {
                payment: payment.clone(),
                first_sent: Instant::now(),
                acknowledged: None,
                created: 0,
                open: 0,
                behind: None,
            });
        entry.open += 1;
    }

    /// A sending was answered: by an acknowledgement, or by a refusal that promises that nothing
    /// was written. A 504 and a 5xx that is not a 503 promise nothing.
    ///
    /// # Panics
    /// If it is acknowledged under another id than before.
    pub fn answered(&self, payment: &Payment, status: StatusCode, transaction: &Value) {
        let mut entries = self.lock();
        let entry = entries
            .get_mut(&(payment.account, payment.key.clone()))
            .expect("an answer to what was never sent");
        match status {
            StatusCode::ACCEPTED | StatusCode::OK => {
                entry.acknowledge(payment, status, transaction);
            }
            _ if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE => return,
            _ => {}
        }
        entry.open -= 1;
    }

    /// One batch created these payments, which stood in it in this order: those for one account are
    /// decided in it.
    pub fn created_together<'p>(&self, payments: impl Iterator<Item = &'p Payment>) {
        let mut entries = self.lock();
        let mut last: BTreeMap<Uuid, String> = BTreeMap::new();
        for payment in payments {
            let before = last.insert(payment.account, payment.key.clone());
            if let Some(entry) = entries.get_mut(&(payment.account, payment.key.clone())) {
                entry.behind = before;
            }
        }
    }

    /// Everything that was sent, in the order of account and key.
    #[must_use]
    pub fn entries(&self) -> Vec<Sent> {
        self.lock().values().cloned().collect()
    }

    /// How many payments were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let entries = self.lock();
        entries
            .values()
            .filter(|sent| sent.acknowledged.is_some())
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Uuid, String), Sent>> {
        self.0.lock().expect("a test panicked over the book")
    }
}

impl Sent {
    /// What counts is the content that was acknowledged first: a refusal does not use the key up.
    fn acknowledge(&mut self, payment: &Payment, status: StatusCode, transaction: &Value) {
        if self.acknowledged.is_none() {
            self.payment = payment.clone();
        }
        let id = transaction["id"].as_str().and_then(|id| id.parse().ok());
        let id: Uuid = id.unwrap_or_else(|| panic!("an acknowledgement without id: {transaction}"));
        let known = self.acknowledged.get_or_insert((Instant::now(), id)).1;
        assert_eq!(known, id, "one key, two transactions: {:?}", self.payment);
        self.created += u32::from(status == StatusCode::ACCEPTED);
    }
}
