//! What postings write, column by column, as the statement takes it.

use std::collections::HashMap;

use common::types::{Currency, FailureReason, TransactionCreated};
use uuid::Uuid;

use crate::ledger::{Entry, Posting};

/// How many rows of each table postings write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// New ledger entries.
    pub entries: i64,
    /// Accounts with a new balance.
    pub accounts: i64,
    /// Transactions that became final.
    pub transactions: i64,
    /// Events that tell of them.
    pub results: i64,
}

#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) entries: Entries,
    pub(super) accounts: Accounts,
    pub(super) transactions: Transactions,
}

/// New rows of `ledger_entries`.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) account_ids: Vec<Uuid>,
    pub(super) entry_nos: Vec<i64>,
    pub(super) transaction_ids: Vec<Uuid>,
    pub(super) amounts_cents: Vec<i64>,
    pub(super) balances_after_cents: Vec<i64>,
}

/// New balances, one an account.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    pub(super) ids: Vec<Uuid>,
    pub(super) balances_cents: Vec<i64>,
    pub(super) entry_counts: Vec<i64>,
}

/// Final states.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    pub(super) ids: Vec<Uuid>,
    pub(super) account_ids: Vec<Uuid>,
    pub(super) amounts_cents: Vec<i64>,
    pub(super) currencies: Vec<Currency>,
    pub(super) types: Vec<&'static str>,
    pub(super) statuses: Vec<&'static str>,
    pub(super) failure_reasons: Vec<Option<&'static str>>,
}

impl Changes {
    /// What these postings write, in their order.
    pub(super) fn of(postings: &[(TransactionCreated, Posting)]) -> Self {
        let mut changes = Self::default();
        let mut last_entries = HashMap::new();
        for (transaction, posting) in postings {
            changes.transactions.push(transaction, *posting);
            if let Posting::Applied(entry) = posting {
                changes.entries.push(transaction, *entry);
                last_entries.insert(transaction.account_id.0, *entry);
            }
        }
        for (account, entry) in last_entries {
            changes.accounts.push(account, entry);
        }
        changes
    }

    /// How many rows that is.
    pub(super) fn rows(&self) -> Rows {
        let count = |ids: &[Uuid]| i64::try_from(ids.len()).unwrap_or(i64::MAX);
        Rows {
            entries: count(&self.entries.transaction_ids),
            accounts: count(&self.accounts.ids),
            transactions: count(&self.transactions.ids),
            results: count(&self.transactions.ids),
        }
    }
}

impl Entries {
    fn push(&mut self, transaction: &TransactionCreated, entry: Entry) {
        self.account_ids.push(transaction.account_id.0);
        self.entry_nos.push(entry.entry_no);
        self.transaction_ids.push(transaction.transaction_id.0);
        self.amounts_cents.push(entry.amount_cents);
        self.balances_after_cents.push(entry.balance_after_cents);
    }
}

impl Accounts {
    fn push(&mut self, id: Uuid, last_entry: Entry) {
        self.ids.push(id);
        self.balances_cents.push(last_entry.balance_after_cents);
        self.entry_counts.push(last_entry.entry_no);
    }
}

impl Transactions {
    fn push(&mut self, transaction: &TransactionCreated, posting: Posting) {
        self.ids.push(transaction.transaction_id.0);
        self.account_ids.push(transaction.account_id.0);
        self.amounts_cents.push(transaction.amount_cents.get());
        self.currencies.push(transaction.currency);
        self.types.push(transaction.transaction_type.as_str());
        self.statuses.push(posting.status().as_str());
        self.failure_reasons
            .push(posting.failure_reason().map(FailureReason::as_str));
    }
}
