use common::types::{
    AccountStatus, AmountCents, FailureReason, TransactionId, TransactionStatus, TransactionType,
};

use super::*;

fn locked(account: AccountId, head_position: i64, queued: i32) -> Locked {
    Locked {
        account,
        head_position,
        queued,
        state: AccountState {
            currency: "EUR".parse().unwrap(),
            status: AccountStatus::Active,
            balance_cents: 0,
            entry_count: 0,
        },
    }
}

fn parked(account: AccountId, position: i64, kind: TransactionType, cents: i64) -> Parked {
    let id = TransactionId::new();
    Parked {
        account,
        position,
        event: id.into(),
        attempts: 0,
        is_due: true,
        is_dead_lettered: false,
        transaction: Some(TransactionRow {
            id,
            account_id: account,
            amount: AmountCents::try_from(cents).unwrap(),
            currency: "EUR".parse().unwrap(),
            transaction_type: kind,
            status: TransactionStatus::Processing,
        }),
    }
}

const CREDIT: TransactionType = TransactionType::Credit;
const DEBIT: TransactionType = TransactionType::Debit;

fn heads(queued: &[i32]) -> Vec<Head> {
    let heads = queued.iter().map(|queued| Head {
        account: AccountId::new(),
        position: 1,
        queued: *queued,
    });
    heads.collect()
}

#[test]
fn as_many_accounts_are_locked_as_their_queues_give_events() {
    let table: [(&[i32], i64, i64); 6] = [
        (&[5, 5, 5], 1, 1),
        (&[5, 5, 5], 5, 1),
        (&[5, 5, 5], 6, 2),
        (&[1, 1, 1], 1_000, 3),
        (&[1_000_000, 1], 1_000, 1),
        (&[], 1, 0),
    ];
    for (queued, events_max, accounts) in table {
        assert_eq!(
            accounts_for(&heads(queued), events_max),
            accounts,
            "{queued:?}"
        );
    }
}

#[test]
fn events_are_shared_out_in_order_and_never_more_than_asked_for() {
    let accounts = [3, 1_000_000, 7].map(|queued| locked(AccountId::new(), 1, queued));
    let shares = |events_max| -> Vec<i64> {
        let shares = share(&accounts, events_max);
        shares.iter().map(|share| share.events_max).collect()
    };
    assert_eq!(shares(1), [1]);
    assert_eq!(shares(3), [3]);
    assert_eq!(shares(1_000), [3, 997]);
    assert_eq!(shares(2_000_000), [3, 1_000_000, 7]);
}

#[test]
fn a_queue_is_decided_in_order_and_the_next_event_becomes_its_head() {
    let (one, other) = (AccountId::new(), AccountId::new());
    let accounts = [locked(one, 4, 3), locked(other, 2, 1)];
    let events = [
        parked(one, 4, CREDIT, 10),
        parked(one, 7, DEBIT, 11),
        parked(other, 2, CREDIT, 1),
    ];
    let plan = plan(&accounts, &events);
    let reasons: Vec<_> = plan
        .postings
        .iter()
        .map(|(_, p)| p.failure_reason())
        .collect();
    let poor = FailureReason::InsufficientFunds;
    assert_eq!(reasons, [None, Some(poor), None]);
    let rejected = Rejected {
        account: one,
        position: 7,
        reason: poor,
    };
    assert_eq!(plan.rejected, [rejected]);
    let removals =
        [(one, 4, 7, 2), (other, 2, 2, 1)].map(|(account, first, last, events)| Removal {
            account,
            first,
            last,
            events,
        });
    assert_eq!(plan.removals, removals);
    let removed = Removed {
        events: 3,
        accounts: 2,
        heads: 1,
    };
    assert_eq!(plan.removed, removed);
}

#[test]
fn a_queue_whose_head_is_another_or_not_due_is_left_alone() {
    let account = AccountId::new();
    let moved_on = parked(account, 5, CREDIT, 1);
    let mut failed_again = parked(account, 4, CREDIT, 1);
    failed_again.is_due = false;
    for first in [moved_on, failed_again] {
        let plan = plan(
            &[locked(account, 4, 2)],
            &[first, parked(account, 9, CREDIT, 1)],
        );
        assert!(plan.events.is_empty() && plan.removals.is_empty());
    }
    // Nor is one whose account is somebody else's.
    let plan = plan(&[], &[parked(account, 4, CREDIT, 1)]);
    assert!(plan.events.is_empty() && plan.removals.is_empty());
}

#[test]
fn what_has_ended_leaves_its_queue_and_is_not_posted() {
    let account = AccountId::new();
    let mut ended = parked(account, 1, CREDIT, 5);
    ended.transaction.as_mut().unwrap().status = TransactionStatus::Failed;
    let mut dead = parked(account, 2, CREDIT, 5);
    dead.is_dead_lettered = true;
    let waiting = parked(account, 3, CREDIT, 5);
    let repeat = Parked {
        position: 4,
        ..waiting
    };
    let plan = plan(&[locked(account, 1, 4)], &[ended, dead, waiting, repeat]);
    assert_eq!(plan.postings.len(), 1);
    assert_eq!(
        plan.postings[0].0.transaction_id,
        waiting.transaction.unwrap().id
    );
    assert_eq!(plan.removed.events, 4);
}

#[test]
fn an_event_without_a_row_is_told() {
    let account = AccountId::new();
    let sound = parked(account, 1, CREDIT, 5);
    let forged = Parked {
        transaction: None,
        ..parked(account, 2, CREDIT, 5)
    };
    let plan = plan(&[locked(account, 1, 2)], &[sound, forged]);
    assert!(plan.is_without_row);
}
