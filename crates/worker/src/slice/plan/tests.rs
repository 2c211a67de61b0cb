use common::types::{
    AccountStatus, FailureReason, SCHEMA_VERSION, TransactionStatus, TransactionType,
};
use proptest::prelude::*;

use super::*;
use crate::{event::Place, ledger::Entry, slice::ApplyError};

fn event(account_id: AccountId, transaction_type: TransactionType, cents: i64) -> Event {
    Event {
        place: Place {
            partition: 0,
            offset: 0,
            epoch: 0,
        },
        transaction: TransactionCreated {
            schema_version: SCHEMA_VERSION,
            transaction_id: TransactionId::new(),
            account_id,
            amount_cents: cents.try_into().unwrap(),
            currency: "EUR".parse().unwrap(),
            transaction_type,
        },
    }
}

fn row(event: &Event) -> TransactionRow {
    let claim = event.transaction;
    TransactionRow {
        id: claim.transaction_id,
        account_id: claim.account_id,
        amount: claim.amount_cents,
        currency: claim.currency,
        transaction_type: claim.transaction_type,
        status: TransactionStatus::Pending,
    }
}

/// The facts in which each event's transaction waits as the event says.
fn facts(events: &[Event]) -> Facts {
    let mut facts = Facts::default();
    for event in events {
        let account = AccountState {
            currency: "EUR".parse().unwrap(),
            status: AccountStatus::Active,
            balance_cents: 0,
            entry_count: 0,
        };
        let accepted = Accepted {
            row: row(event),
            age_seconds: 0.5,
        };
        facts.accounts.insert(event.transaction.account_id, account);
        facts
            .transactions
            .insert(event.transaction.transaction_id, accepted);
    }
    facts
}

fn unseen(events: &[Event]) -> HashSet<EventId> {
    events.iter().map(Event::id).collect()
}

fn postings(outcomes: &[Outcome]) -> Vec<Option<Posting>> {
    outcomes.iter().map(Outcome::posting).collect()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "stands beside the `None` of a repeat"
)]
fn applied(entry_no: i64, amount_cents: i64, balance_after_cents: i64) -> Option<Posting> {
    Some(Posting::Applied(Entry {
        entry_no,
        amount_cents,
        balance_after_cents,
    }))
}

#[test]
fn events_are_decided_in_their_order() {
    let account = AccountId::new();
    let credit = event(account, TransactionType::Credit, 5);
    let debit = event(account, TransactionType::Debit, 3);
    let outcomes = decide(
        &[credit, debit],
        facts(&[credit, debit]),
        &unseen(&[credit, debit]),
    );
    assert_eq!(
        postings(&outcomes.unwrap()),
        [applied(1, 5, 5), applied(2, -3, 2)]
    );

    let outcomes = decide(
        &[debit, credit],
        facts(&[credit, debit]),
        &unseen(&[credit, debit]),
    );
    let refused = Some(Posting::Rejected(FailureReason::InsufficientFunds));
    assert_eq!(postings(&outcomes.unwrap()), [refused, applied(1, 5, 5)]);
}

#[test]
fn a_repeat_changes_nothing() {
    let credit = event(AccountId::new(), TransactionType::Credit, 5);
    let outcomes = decide(&[credit, credit], facts(&[credit]), &unseen(&[credit])).unwrap();
    assert_eq!(postings(&outcomes), [applied(1, 5, 5), None]);

    let closed_before = decide(&[credit], facts(&[credit]), &HashSet::new()).unwrap();
    assert_eq!(closed_before, [Outcome::Duplicate]);
}

#[test]
fn a_final_transaction_is_never_posted_whatever_processed_events_says() {
    for status in [TransactionStatus::Processed, TransactionStatus::Failed] {
        let credit = event(AccountId::new(), TransactionType::Credit, 5);
        let mut facts = facts(&[credit]);
        facts
            .transactions
            .get_mut(&credit.transaction.transaction_id)
            .unwrap()
            .row
            .status = status;
        assert_eq!(
            decide(&[credit], facts, &unseen(&[credit])).unwrap(),
            [Outcome::Duplicate]
        );
    }
}

#[test]
fn a_transaction_taken_up_and_not_ended_is_posted() {
    let credit = event(AccountId::new(), TransactionType::Credit, 5);
    let mut facts = facts(&[credit]);
    let accepted = facts
        .transactions
        .get_mut(&credit.transaction.transaction_id)
        .unwrap();
    accepted.row.status = TransactionStatus::Processing;
    let outcomes = decide(&[credit], facts, &unseen(&[credit])).unwrap();
    assert_eq!(postings(&outcomes), [applied(1, 5, 5)]);
}

#[test]
fn an_event_that_differs_from_its_row_is_not_applied() {
    type Forge = fn(&mut TransactionCreated);
    let table: [(Forge, Inapplicable); 5] = [
        (
            |claim| claim.transaction_id = TransactionId::new(),
            Inapplicable::NoSuchTransaction,
        ),
        (
            |claim| claim.account_id = AccountId::new(),
            Inapplicable::NoSuchTransaction,
        ),
        (
            |claim| claim.amount_cents = 6.try_into().unwrap(),
            Inapplicable::Amount,
        ),
        (
            |claim| claim.currency = "USD".parse().unwrap(),
            Inapplicable::Currency,
        ),
        (
            |claim| claim.transaction_type = TransactionType::Debit,
            Inapplicable::Type,
        ),
    ];
    for (forge, expected) in table {
        let good = event(AccountId::new(), TransactionType::Credit, 7);
        let genuine = event(AccountId::new(), TransactionType::Credit, 5);
        let mut forged = genuine;
        forge(&mut forged.transaction);
        // The rows exist already, final or not: a claim is compared before it is called a repeat.
        let error = decide(&[good, forged], facts(&[good, genuine]), &HashSet::new()).unwrap_err();
        let ApplyError::Inapplicable { index, reason } = error else {
            panic!("{error}")
        };
        assert_eq!((index, reason), (1, expected));
    }
}

#[test]
fn a_transaction_without_its_account_is_not_applied() {
    let credit = event(AccountId::new(), TransactionType::Credit, 5);
    let mut facts = facts(&[credit]);
    facts.accounts.clear();
    let error = decide(&[credit], facts, &unseen(&[credit])).unwrap_err();
    assert!(matches!(
        error,
        ApplyError::Inapplicable {
            index: 0,
            reason: Inapplicable::NoSuchAccount
        }
    ));
}

proptest! {
    /// However the events are repeated, as long as first occurrences keep their order, the same is
    /// posted: repeats may interleave.
    #[test]
    fn repeats_never_change_what_is_posted(
        kinds in prop::collection::vec((any::<bool>(), 1..50_i64, 0..3_usize), 1..20),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let accounts = [AccountId::new(), AccountId::new(), AccountId::new()];
        let once: Vec<Event> = kinds.into_iter().map(|(credit, cents, account)| {
            let kind = if credit { TransactionType::Credit } else { TransactionType::Debit };
            event(accounts[account], kind, cents)
        }).collect();
        let mut repeated = once.clone();
        for repeat in repeats {
            // Copied to anywhere behind its first occurrence.
            let from = repeat.index(repeated.len());
            let to = from + 1 + repeat.index(repeated.len() - from);
            repeated.insert(to, repeated[from]);
        }
        let expected = decide(&once, facts(&once), &unseen(&once)).unwrap();
        let outcomes = decide(&repeated, facts(&once), &unseen(&once)).unwrap();
        let closed: Vec<_> =
            outcomes.into_iter().filter(|outcome| *outcome != Outcome::Duplicate).collect();
        prop_assert_eq!(closed, expected);
    }
}
