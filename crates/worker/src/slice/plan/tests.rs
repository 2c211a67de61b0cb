use common::types::{
    AccountStatus, FailureReason, SCHEMA_VERSION, TransactionStatus, TransactionType,
};
use proptest::prelude::*;

use super::*;
use crate::{
    event::{Place, Raw},
    ledger::Entry,
};

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
        raw: Raw::new(None, None, &[], None),
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
fn facts(events: &[&Event]) -> Facts {
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
            dead_lettered: false,
            age_seconds: 0.5,
        };
        facts.accounts.insert(event.transaction.account_id, account);
        facts
            .transactions
            .insert(event.transaction.transaction_id, accepted);
    }
    facts
}

fn unseen(events: &[&Event]) -> HashSet<EventId> {
    events.iter().map(|event| event.id()).collect()
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
    let both = [&credit, &debit];
    let outcomes = decide(&both, facts(&both), &unseen(&both));
    assert_eq!(postings(&outcomes), [applied(1, 5, 5), applied(2, -3, 2)]);

    let outcomes = decide(&[&debit, &credit], facts(&both), &unseen(&both));
    let refused = Some(Posting::Rejected(FailureReason::InsufficientFunds));
    assert_eq!(postings(&outcomes), [refused, applied(1, 5, 5)]);
}

#[test]
fn a_repeat_changes_nothing() {
    let credit = event(AccountId::new(), TransactionType::Credit, 5);
    let outcomes = decide(&[&credit, &credit], facts(&[&credit]), &unseen(&[&credit]));
    assert_eq!(postings(&outcomes), [applied(1, 5, 5), None]);

    let closed_before = decide(&[&credit], facts(&[&credit]), &HashSet::new());
    assert_eq!(closed_before, [Outcome::Duplicate]);
}

#[test]
fn a_final_transaction_is_never_posted_whatever_processed_events_says() {
    for status in [TransactionStatus::Processed, TransactionStatus::Failed] {
        let credit = event(AccountId::new(), TransactionType::Credit, 5);
        let mut facts = facts(&[&credit]);
        facts
            .transactions
            .get_mut(&credit.transaction.transaction_id)
            .unwrap()
            .row
            .status = status;
        assert_eq!(
            decide(&[&credit], facts, &unseen(&[&credit])),
            [Outcome::Duplicate]
        );
    }
}

#[test]
fn a_transaction_taken_up_and_not_ended_is_posted() {
    let credit = event(AccountId::new(), TransactionType::Credit, 5);
    let mut facts = facts(&[&credit]);
    let accepted = facts
        .transactions
        .get_mut(&credit.transaction.transaction_id)
        .unwrap();
    accepted.row.status = TransactionStatus::Processing;
    let outcomes = decide(&[&credit], facts, &unseen(&[&credit]));
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
        let mut forged = genuine.clone();
        forge(&mut forged.transaction);
        // The rows exist already, final or not: a claim is compared before it is called a repeat.
        let facts = facts(&[&good, &genuine]);
        let outcomes = decide(&[&good, &forged, &good], facts, &unseen(&[&good]));
        assert_eq!(postings(&outcomes), [applied(1, 7, 7), None, None]);
        assert_eq!(outcomes[1], Outcome::Dead(expected));
    }
}

#[test]
fn a_transaction_without_its_account_is_not_applied() {
    let credit = event(AccountId::new(), TransactionType::Credit, 5);
    let mut facts = facts(&[&credit]);
    facts.accounts.clear();
    let outcomes = decide(&[&credit], facts, &unseen(&[&credit]));
    assert_eq!(outcomes, [Outcome::Dead(Inapplicable::NoSuchAccount)]);
}

#[test]
fn a_dead_letters_transaction_is_not_posted_before_its_replay() {
    let credit = event(AccountId::new(), TransactionType::Credit, 5);
    let mut facts = facts(&[&credit]);
    let id = credit.transaction.transaction_id;
    let accepted = facts.transactions.get_mut(&id).unwrap();
    accepted.row.status = TransactionStatus::Processing;
    accepted.dead_lettered = true;
    let outcomes = decide(&[&credit], facts, &unseen(&[&credit]));
    assert_eq!(outcomes, [Outcome::Duplicate]);
}

#[test]
fn what_is_not_closed_waits_behind_its_accounts_queue_and_others_do_not() {
    let queued = AccountId::new();
    let known = event(queued, TransactionType::Credit, 1);
    let forged = event(queued, TransactionType::Credit, 2);
    let waits = event(queued, TransactionType::Credit, 3);
    let free = event(AccountId::new(), TransactionType::Credit, 4);
    let all = [&known, &forged, &waits, &free];
    let mut facts = facts(&[&known, &waits, &free]);
    facts.queues.insert(queued);
    let outcomes = decide(&all, facts, &unseen(&[&waits, &free]));
    assert_eq!(outcomes[0], Outcome::Duplicate);
    assert_eq!(outcomes[1], Outcome::Dead(Inapplicable::NoSuchTransaction));
    assert_eq!(outcomes[2], Outcome::Parked);
    assert_eq!(outcomes[3].posting(), applied(1, 4, 4));
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
            repeated.insert(to, repeated[from].clone());
        }
        let once: Vec<&Event> = once.iter().collect();
        let repeated: Vec<&Event> = repeated.iter().collect();
        let expected = decide(&once, facts(&once), &unseen(&once));
        let outcomes = decide(&repeated, facts(&once), &unseen(&once));
        let closed: Vec<_> =
            outcomes.into_iter().filter(|outcome| *outcome != Outcome::Duplicate).collect();
        prop_assert_eq!(closed, expected);
    }
}
