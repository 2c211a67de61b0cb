//! The rules, without I/O: each says what is wrong in words.

mod order;
mod refusals;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::snapshot::{DeadLetterRow, EntryRow, Snapshot, TransactionRow};
use crate::{book::Sent, kafka::Record};

impl Snapshot {
    /// Everything that is wrong with the books, given what a test sent and was told.
    #[must_use]
    pub fn wrongs(&self, book: &[Sent]) -> Vec<String> {
        let mut wrongs = Vec::new();
        self.transactions_are_the_books(book, &mut wrongs);
        self.entries_are_the_transactions(&mut wrongs);
        self.accounts_add_up(&mut wrongs);
        self.dead_letters_are_the_waiting_transactions(&mut wrongs);
        self.results_tell_the_transactions(&mut wrongs);
        self.refusals_are_deserved(&mut wrongs);
        self.order_is_kept(book, &mut wrongs);
        wrongs
    }

    /// Every acknowledged payment has its transaction, and no other transaction exists.
    fn transactions_are_the_books(&self, book: &[Sent], wrongs: &mut Vec<String>) {
        let mut sent: HashMap<_, _> = book
            .iter()
            .map(|sent| ((sent.payment.account, sent.payment.key.as_str()), sent))
            .collect();
        for row in &self.transactions {
            match sent.remove(&(row.account_id, row.idempotency_key.as_str())) {
                Some(sent) => wrongs.extend(differs(row, sent)),
                None => wrongs.push(format!("nobody sent, or sent once: {row:?}")),
            }
        }
        let lost = sent.values().filter(|sent| sent.acknowledged.is_some());
        wrongs.extend(lost.map(|sent| format!("acknowledged and lost: {:?}", sent.payment)));
        let twice = book.iter().filter(|sent| sent.created > 1);
        wrongs.extend(twice.map(|sent| format!("answered 202 twice: {:?}", sent.payment)));
    }

    /// Each PROCESSED transaction has one entry of its amount, each FAILED or dead-lettered one none, and
    /// no other state is left.
    fn entries_are_the_transactions(&self, wrongs: &mut Vec<String>) {
        let mut entries: HashMap<Uuid, Vec<&EntryRow>> = HashMap::new();
        for entry in &self.entries {
            entries.entry(entry.transaction_id).or_default().push(entry);
        }
        for row in &self.transactions {
            let entries = entries.remove(&row.id).unwrap_or_default();
            let right = match (row.status.as_str(), &*entries) {
                ("PROCESSED", [entry]) => {
                    entry.account_id == row.account_id && entry.amount_cents == row.signed()
                }
                ("FAILED", []) => row.failure_reason.is_some(),
                ("PROCESSING", []) => row.is_dead_lettered(),
                _ => false,
            };
            if !right {
                wrongs.push(format!("{row:?} has the entries {entries:?}"));
            }
        }
        let strange = entries.into_values().flatten();
        wrongs.extend(strange.map(|entry| format!("an entry of no transaction: {entry:?}")));
    }

    /// Each account's entries are numbered from 1 without gaps, their balances follow from each
    /// other and never fall below zero, and the last is the account's.
    fn accounts_add_up(&self, wrongs: &mut Vec<String>) {
        for account in &self.accounts {
            let (mut count, mut balance) = (0, 0);
            for entry in self.entries.iter().filter(|e| e.account_id == account.id) {
                count += 1;
                balance += entry.amount_cents;
                if entry.entry_no != count || entry.balance_after_cents != balance || balance < 0 {
                    wrongs.push(format!("expected number {count}, {balance}: {entry:?}"));
                }
            }
            if (account.entry_count, account.balance_cents) != (count, balance) {
                wrongs.push(format!("the entries make {count}, {balance}: {account:?}"));
            }
        }
    }

    /// A transaction is dead-lettered exactly if a dead letter waits for somebody, and an account's
    /// count of parked events is theirs.
    fn dead_letters_are_the_waiting_transactions(&self, wrongs: &mut Vec<String>) {
        let dead = self
            .dead_letters
            .iter()
            .filter(|letter| letter.holds_its_transaction());
        let mut held: HashMap<Uuid, &DeadLetterRow> = dead
            .filter_map(|letter| Some((letter.transaction_id?, letter)))
            .collect();
        for row in self
            .transactions
            .iter()
            .filter(|row| row.is_dead_lettered())
        {
            if held.remove(&row.id).is_none() {
                wrongs.push(format!("dead-lettered without a dead letter: {row:?}"));
            }
        }
        let strange = held.values();
        wrongs.extend(strange.map(|letter| format!("nothing waits for {letter:?}")));
        for account in &self.accounts {
            let parked = self.parked.get(&account.id).copied().unwrap_or_default();
            if i64::from(account.parked_count) != parked {
                wrongs.push(format!("{parked} events are parked: {account:?}"));
            }
        }
    }

    /// Each transaction that ended has one result event, which tells what became of it; a repeat of it is the
    /// same to the last byte.
    fn results_tell_the_transactions(&self, wrongs: &mut Vec<String>) {
        let mut transactions: HashMap<String, &TransactionRow> = self
            .transactions
            .iter()
            .filter(|row| !row.is_dead_lettered())
            .map(|row| (row.id.to_string(), row))
            .collect();
        let entries: HashMap<Uuid, &EntryRow> = self
            .entries
            .iter()
            .map(|entry| (entry.transaction_id, entry))
            .collect();
        let mut seen: HashMap<&str, &Record> = HashMap::new();
        for record in &self.results {
            let id = record.header("ce_id");
            if let Some(first) = seen.get(id) {
                if (&first.key, &first.headers, &first.value)
                    != (&record.key, &record.headers, &record.value)
                {
                    wrongs.push(format!("a repeat differs: {first:?} and {record:?}"));
                }
                continue;
            }
            seen.insert(id, record);
            let event = record.json();
            let of = event["transaction_id"].as_str().unwrap_or_default();
            match transactions.remove(of) {
                Some(row) if tells(record, row, entries.get(&row.id).copied()) => {}
                Some(row) => wrongs.push(format!("{event} tells {row:?} wrongly")),
                None => wrongs.push(format!("a second result, or of nothing: {event}")),
            }
        }
        let untold = transactions.values();
        wrongs.extend(untold.map(|row| format!("no result event of {row:?}")));
    }

    /// What the results tell of, account and transaction, in the order in which it was decided: what
    /// repeats was decided where it stands first.
    fn decided(&self) -> impl Iterator<Item = (Uuid, Uuid)> {
        let mut seen = HashSet::new();
        let results = self.results.iter();
        let first = results.filter(move |record| seen.insert(record.header("ce_id")));
        first.filter_map(|record| {
            let id = record.json()["transaction_id"].as_str()?.parse().ok()?;
            Some((record.key.parse().ok()?, id))
        })
    }
}

/// What a row says against what was sent and told.
fn differs(row: &TransactionRow, sent: &Sent) -> Option<String> {
    let payment = &sent.payment;
    let content = row.amount_cents == payment.amount_cents
        && row.currency == payment.currency
        && row.kind == payment.kind.as_str();
    let wanted = match sent.acknowledged {
        Some((_, id)) => id == row.id,
        None => sent.open > 0,
    };
    (!content || !wanted).then(|| format!("{row:?} is not what was acknowledged: {sent:?}"))
}

fn tells(record: &Record, row: &TransactionRow, entry: Option<&EntryRow>) -> bool {
    let event = record.json();
    let common = record.key == row.account_id.to_string()
        && event["account_id"] == row.account_id.to_string()
        && event["amount_cents"] == row.amount_cents
        && event["currency"] == row.currency
        && event["type"] == row.kind;
    common
        && match (record.header("ce_type"), row.status.as_str(), entry) {
            ("transaction.processed", "PROCESSED", Some(entry)) => {
                event["entry_no"] == entry.entry_no
                    && event["balance_after_cents"] == entry.balance_after_cents
            }
            ("transaction.failed", "FAILED", None) => {
                event["failure_reason"].as_str() == row.failure_reason.as_deref()
            }
            _ => false,
        }
}

impl TransactionRow {
    /// Whether it waits for somebody to replay or discard its event.
    pub(crate) fn is_dead_lettered(&self) -> bool {
        self.status == "PROCESSING" && self.failure_reason.as_deref() == Some("dead_lettered")
    }

    /// What it does to the balance.
    fn signed(&self) -> i64 {
        if self.kind == "CREDIT" {
            self.amount_cents
        } else {
            -self.amount_cents
        }
    }
}

#[cfg(test)]
mod tests;
