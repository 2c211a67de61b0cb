use proptest::prelude::*;

use super::*;

fn account(balance_cents: i64) -> AccountState {
    AccountState {
        currency: "EUR".parse().unwrap(),
        status: AccountStatus::Active,
        balance_cents,
        entry_count: 7,
    }
}

fn transaction(transaction_type: TransactionType, cents: i64) -> TransactionRow {
    TransactionRow {
        id: TransactionId::new(),
        account_id: AccountId::new(),
        amount: cents.try_into().unwrap(),
        currency: "EUR".parse().unwrap(),
        transaction_type,
        status: TransactionStatus::Pending,
    }
}

#[test]
fn an_applied_transaction_is_one_entry() {
    use TransactionType::{Credit, Debit};
    let table = [
        // balance, type, amount, entry's amount, balance after
        (0, Credit, 5, 5, 5),
        (0, Credit, i64::MAX, i64::MAX, i64::MAX),
        (i64::MAX - 1, Credit, 1, 1, i64::MAX),
        (5, Debit, 5, -5, 0),
        (6, Debit, 5, -5, 1),
        (i64::MAX, Debit, i64::MAX, -i64::MAX, 0),
    ];
    for (balance, transaction_type, amount, amount_cents, balance_after_cents) in table {
        let mut state = account(balance);
        let posting = post(&mut state, &transaction(transaction_type, amount));
        let entry = Entry {
            entry_no: 8,
            amount_cents,
            balance_after_cents,
        };
        assert_eq!(posting, Posting::Applied(entry));
        assert_eq!(state.balance_cents, balance_after_cents);
        assert_eq!(state.entry_count, 8);
        assert_eq!(posting.status(), TransactionStatus::Processed);
        assert_eq!(posting.failure_reason(), None);
    }
}

#[test]
fn a_rejected_transaction_changes_nothing_and_says_why() {
    use TransactionType::{Credit, Debit};
    let suspended = AccountState {
        status: AccountStatus::Suspended,
        ..account(100)
    };
    let foreign = AccountState {
        currency: "USD".parse().unwrap(),
        ..account(100)
    };
    let numbered = AccountState {
        entry_count: i64::MAX,
        ..account(100)
    };
    let both = AccountState {
        status: AccountStatus::Suspended,
        ..foreign
    };
    let table = [
        (account(0), Debit, 1, FailureReason::InsufficientFunds),
        (account(4), Debit, 5, FailureReason::InsufficientFunds),
        (
            account(0),
            Debit,
            i64::MAX,
            FailureReason::InsufficientFunds,
        ),
        (account(1), Credit, i64::MAX, FailureReason::BalanceOverflow),
        (account(i64::MAX), Credit, 1, FailureReason::BalanceOverflow),
        (numbered, Credit, 1, FailureReason::BalanceOverflow),
        (suspended, Debit, 1, FailureReason::AccountSuspended),
        (suspended, Credit, 1, FailureReason::AccountSuspended),
        (foreign, Credit, 1, FailureReason::CurrencyMismatch),
        (both, Credit, 1, FailureReason::AccountSuspended),
    ];
    for (before, transaction_type, amount, reason) in table {
        let mut state = before;
        let posting = post(&mut state, &transaction(transaction_type, amount));
        assert_eq!(posting, Posting::Rejected(reason));
        assert_eq!(state, before);
        assert_eq!(posting.status(), TransactionStatus::Failed);
        assert_eq!(posting.failure_reason(), Some(reason));
    }
}

fn any_transaction() -> impl Strategy<Value = TransactionRow> {
    // Small amounts move a balance about, huge ones reach its ends.
    let cents = prop_oneof![1..1_000_i64, i64::MAX - 2_000..=i64::MAX];
    (
        any::<bool>(),
        cents,
        prop::sample::select(vec!["EUR", "EUR", "EUR", "USD"]),
    )
        .prop_map(|(credit, cents, currency)| {
            let kind = if credit {
                TransactionType::Credit
            } else {
                TransactionType::Debit
            };
            TransactionRow {
                currency: currency.parse().unwrap(),
                ..transaction(kind, cents)
            }
        })
}

proptest! {
    /// The balance is the sum of the entries, is never negative, and the entries' numbers and
    /// running balances follow on each other in the order of the transactions.
    #[test]
    fn a_statement_adds_up(
        start in 0..2_000_i64,
        transactions in prop::collection::vec(any_transaction(), 0..60),
    ) {
        let mut state = account(start);
        let (mut balance, mut entry_no) = (i128::from(start), state.entry_count);
        for transaction in &transactions {
            let before = state;
            match post(&mut state, transaction) {
                Posting::Applied(entry) => {
                    balance += i128::from(entry.amount_cents);
                    entry_no += 1;
                    prop_assert_eq!(entry.amount_cents.abs(), transaction.amount.get());
                    prop_assert_eq!(entry.entry_no, entry_no);
                    prop_assert_eq!(i128::from(entry.balance_after_cents), balance);
                }
                Posting::Rejected(_) => prop_assert_eq!(state, before),
            }
            prop_assert!(state.balance_cents >= 0);
            prop_assert_eq!(i128::from(state.balance_cents), balance);
            prop_assert_eq!(state.entry_count, entry_no);
        }
    }

    /// A transaction is refused only where the exact sum would leave the range of a balance.
    #[test]
    fn nothing_is_refused_without_cause(start in any::<i64>(), transaction in any_transaction()) {
        let mut state = account(start & i64::MAX);
        let signed = match transaction.transaction_type {
            TransactionType::Credit => i128::from(transaction.amount.get()),
            TransactionType::Debit => -i128::from(transaction.amount.get()),
        };
        let sum = i128::from(state.balance_cents) + signed;
        let expected = if transaction.currency != state.currency {
            Some(FailureReason::CurrencyMismatch)
        } else if sum < 0 {
            Some(FailureReason::InsufficientFunds)
        } else if sum > i128::from(i64::MAX) {
            Some(FailureReason::BalanceOverflow)
        } else {
            None
        };
        prop_assert_eq!(post(&mut state, &transaction).failure_reason(), expected);
    }
}
