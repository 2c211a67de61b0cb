//! The rules of posting: what a transaction does to its account. Plain functions, no I/O.

use common::types::{
    AccountId, AccountStatus, AmountCents, Currency, FailureReason, TransactionId,
    TransactionStatus, TransactionType,
};

/// What an account's row says, kept up to date while a slice is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// The only currency it holds.
    pub currency: Currency,
    /// A suspended account refuses debits and credits.
    pub status: AccountStatus,
    /// The sum of its entries in minor units, never negative.
    pub balance_cents: i64,
    /// How many entries it has, which is the number of the last one.
    pub entry_count: i64,
}

/// What a transaction's row says: the authority on what is to be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionRow {
    /// Names the transaction.
    pub id: TransactionId,
    /// The account that it debits or credits.
    pub account_id: AccountId,
    /// Minor units of the currency.
    pub amount: AmountCents,
    /// ISO 4217.
    pub currency: Currency,
    /// Whether the amount is added or taken.
    pub transaction_type: TransactionType,
    /// How far it has come.
    pub status: TransactionStatus,
}

/// A line of an account's statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the account: from 1, without gaps.
    pub entry_no: i64,
    /// What it adds, in minor units: negative for a debit.
    pub amount_cents: i64,
    /// The account's balance behind it.
    pub balance_after_cents: i64,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posting {
    /// It is in the ledger.
    Applied(Entry),
    /// It was refused, and nothing changed.
    Rejected(FailureReason),
}

impl Posting {
    /// The final state of the transaction.
    #[must_use]
    pub const fn status(self) -> TransactionStatus {
        match self {
            Self::Applied(_) => TransactionStatus::Processed,
            Self::Rejected(_) => TransactionStatus::Failed,
        }
    }

    /// Why it was refused, if it was.
    #[must_use]
    pub const fn failure_reason(self) -> Option<FailureReason> {
        match self {
            Self::Applied(_) => None,
            Self::Rejected(reason) => Some(reason),
        }
    }
}

/// Posts a transaction that is not final yet: the account takes the entry, or stays as it is.
pub fn post(account: &mut AccountState, transaction: &TransactionRow) -> Posting {
    match entry(account, transaction) {
        Ok(entry) => {
            account.balance_cents = entry.balance_after_cents;
            account.entry_count = entry.entry_no;
            Posting::Applied(entry)
        }
        Err(reason) => Posting::Rejected(reason),
    }
}

fn entry(account: &AccountState, transaction: &TransactionRow) -> Result<Entry, FailureReason> {
    if account.status == AccountStatus::Suspended {
        return Err(FailureReason::AccountSuspended);
    }
    if account.currency != transaction.currency {
        return Err(FailureReason::CurrencyMismatch);
    }
    let amount_cents = match transaction.transaction_type {
        TransactionType::Credit => transaction.amount.get(),
        // An amount is at least 1, so its negative always exists.
        TransactionType::Debit => -transaction.amount.get(),
    };
    let overflow = FailureReason::BalanceOverflow;
    let balance_after_cents = account
        .balance_cents
        .checked_add(amount_cents)
        .ok_or(overflow)?;
    if balance_after_cents < 0 {
        return Err(FailureReason::InsufficientFunds);
    }
    Ok(Entry {
        entry_no: account.entry_count.checked_add(1).ok_or(overflow)?,
        amount_cents,
        balance_after_cents,
    })
}

#[cfg(test)]
mod tests;
