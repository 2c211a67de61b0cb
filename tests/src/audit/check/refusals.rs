//! Who was refused has to have been: a refusal is an end like any other, and a worker that refuses what it
//! should have posted would lose payments that all other rules find in order.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Snapshot, TransactionRow};
use crate::audit::EntryRow;

/// How far an account has come.
#[derive(Debug)]
struct Standing<'a> {
    currency: &'a str,
    balance_cents: i64,
    entry_no: i64,
}

impl Snapshot {
    /// Walks through the results in their order, with each account's balance: an entry follows the one
    /// before, and a refusal has a reason that holds at its place.
    pub(super) fn refusals_are_deserved(&self, wrongs: &mut Vec<String>) {
        let rows: HashMap<Uuid, &TransactionRow> =
            self.transactions.iter().map(|row| (row.id, row)).collect();
        let entries = self.entries.iter();
        let entries: HashMap<Uuid, &EntryRow> =
            entries.map(|entry| (entry.transaction_id, entry)).collect();
        let discarded = self.discarded();
        let mut standings = self.standings();
        for (account, id) in self.decided() {
            // What is of no transaction or account, other rules tell.
            let Some((row, standing)) = rows.get(&id).zip(standings.get_mut(&account)) else {
                continue;
            };
            if let Some(entry) = entries.get(&id) {
                if entry.entry_no != standing.entry_no + 1 {
                    wrongs.push(format!("results: {entry:?} comes behind {standing:?}"));
                }
                standing.entry_no = entry.entry_no;
                standing.balance_cents = entry.balance_after_cents;
            } else if row.status == "FAILED" && !standing.refuses(row, &discarded) {
                wrongs.push(format!("refused for no reason at {standing:?}: {row:?}"));
            }
        }
    }

    /// The transactions that somebody ended by discarding their dead letters.
    fn discarded(&self) -> HashSet<Uuid> {
        let letters = self.dead_letters.iter();
        let discarded = letters.filter(|letter| letter.ended_its_transaction());
        discarded
            .filter_map(|letter| letter.transaction_id)
            .collect()
    }

    /// Each account as it was opened.
    fn standings(&self) -> HashMap<Uuid, Standing<'_>> {
        let opened = self.accounts.iter().map(|account| {
            let standing = Standing {
                currency: &account.currency,
                balance_cents: 0,
                entry_no: 0,
            };
            (account.id, standing)
        });
        opened.collect()
    }
}

impl Standing<'_> {
    /// Whether the reason for which a transaction failed here is true.
    fn refuses(&self, row: &TransactionRow, discarded: &HashSet<Uuid>) -> bool {
        let is_credit = row.kind == "CREDIT";
        match row.failure_reason.as_deref() {
            Some("insufficient_funds") => !is_credit && row.amount_cents > self.balance_cents,
            Some("balance_overflow") => {
                is_credit && self.balance_cents.checked_add(row.amount_cents).is_none()
            }
            Some("currency_mismatch") => row.currency != self.currency,
            Some("discarded") => discarded.contains(&row.id),
            // What the account's status was at that moment, nobody has written down.
            Some("account_suspended") => true,
            _ => false,
        }
    }
}
