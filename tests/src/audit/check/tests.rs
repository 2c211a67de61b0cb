//! The auditor has to find what it is there for, so each kind of wrong is put into right books once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::{audit::AccountRow, book::Payment};

/// Right books: one account, two credits and a debit that was refused, sent one after the other.
struct Books {
    snapshot: Snapshot,
    sent: Vec<Sent>,
}

fn books() -> Books {
    let account = Uuid::new_v4();
    let payments = [
        Payment::credit(account, 500),
        Payment::credit(account, 300),
        Payment::debit(account, 9_000),
    ];
    let start = Instant::now();
    let at = |second: u64| start + Duration::from_secs(second);
    let sent = (0..).zip(payments).map(|(number, payment)| Sent {
        payment,
        first_sent: at(2 * number),
        acknowledged: Some((at(2 * number + 1), Uuid::new_v4())),
        created: 1,
        open: 0,
        behind: None,
    });
    let sent: Vec<_> = sent.collect();
    let transactions: Vec<_> = sent.iter().map(transaction).collect();
    let entries = vec![
        entry(&transactions[0], 1, 500),
        entry(&transactions[1], 2, 800),
    ];
    let results = vec![
        result(0, &transactions[0], Some(&entries[0])),
        result(1, &transactions[1], Some(&entries[1])),
        result(2, &transactions[2], None),
    ];
    let accounts = vec![AccountRow {
        id: account,
        currency: "EUR".to_owned(),
        balance_cents: 800,
        entry_count: 2,
        parked_count: 0,
    }];
    Books {
        snapshot: Snapshot {
            accounts,
            transactions,
            entries,
            results,
            ..Snapshot::default()
        },
        sent,
    }
}

fn transaction(sent: &Sent) -> TransactionRow {
    let failed = sent.payment.amount_cents == 9_000;
    TransactionRow {
        id: sent.acknowledged.unwrap().1,
        account_id: sent.payment.account,
        amount_cents: sent.payment.amount_cents,
        currency: "EUR".to_owned(),
        kind: sent.payment.kind.to_string(),
        status: if failed { "FAILED" } else { "PROCESSED" }.to_owned(),
        idempotency_key: sent.payment.key.clone(),
        failure_reason: failed.then(|| "insufficient_funds".to_owned()),
    }
}

fn entry(transaction: &TransactionRow, entry_no: i64, balance_after_cents: i64) -> EntryRow {
    EntryRow {
        account_id: transaction.account_id,
        entry_no,
        transaction_id: transaction.id,
        amount_cents: transaction.amount_cents,
        balance_after_cents,
    }
}

fn result(offset: i64, transaction: &TransactionRow, entry: Option<&EntryRow>) -> Record {
    let mut value = json!({
        "schema_version": 1,
        "transaction_id": transaction.id,
        "account_id": transaction.account_id,
        "amount_cents": transaction.amount_cents,
        "currency": transaction.currency,
        "type": transaction.kind,
    });
    let event_type = if let Some(entry) = entry {
        value["entry_no"] = entry.entry_no.into();
        value["balance_after_cents"] = entry.balance_after_cents.into();
        "transaction.processed"
    } else {
        value["failure_reason"] = transaction.failure_reason.clone().into();
        "transaction.failed"
    };
    Record {
        partition: 0,
        offset,
        key: transaction.account_id.to_string(),
        headers: vec![
            ("ce_id".to_owned(), Uuid::new_v4().to_string()),
            ("ce_type".to_owned(), event_type.to_owned()),
        ],
        value: value.to_string().into_bytes(),
    }
}

/// Spoils right books and hands over what the auditor finds.
fn found(spoil: impl FnOnce(&mut Books)) -> String {
    let mut books = books();
    spoil(&mut books);
    books.snapshot.wrongs(&books.sent).join("\n")
}

#[test]
fn right_books_are_found_right() {
    assert_eq!(found(|_| {}), "");
}

#[test]
fn a_repeated_event_is_no_wrong_and_a_changed_one_is() {
    let repeat = |books: &mut Books| {
        let again = books.snapshot.results[1].clone();
        books.snapshot.results.push(again);
    };
    assert_eq!(found(repeat), "");
    let changed = found(|books| {
        repeat(books);
        books.snapshot.results[3].value = b"{}".to_vec();
    });
    assert!(changed.contains("a repeat differs"), "{changed}");
}

#[test]
fn a_payment_of_unknown_outcome_may_be_there_or_not() {
    let open = |books: &mut Books| {
        books.sent[2].acknowledged = None;
        books.sent[2].created = 0;
        books.sent[2].open = 1;
    };
    assert_eq!(found(open), "");
    let absent = |books: &mut Books| {
        open(books);
        books.snapshot.transactions.pop();
        books.snapshot.results.pop();
    };
    assert_eq!(found(absent), "");
}

#[test]
fn each_wrong_is_found() {
    type Spoil = fn(&mut Books);
    let table: [(&str, Spoil); 26] = [
        ("acknowledged and lost", |b| {
            b.snapshot.transactions.pop();
        }),
        ("nobody sent", |b| {
            b.sent.pop();
        }),
        ("not what was acknowledged", |b| {
            b.sent[0].acknowledged = None;
        }),
        ("not what was acknowledged", |b| {
            b.snapshot.transactions[0].amount_cents = 501;
        }),
        ("answered 202 twice", |b| b.sent[0].created = 2),
        ("has the entries []", |b| {
            b.snapshot.entries.pop();
        }),
        ("has the entries", |b| {
            let doubled = b.snapshot.entries[1].clone();
            b.snapshot.entries.push(doubled);
        }),
        ("has the entries []", |b| {
            b.snapshot.transactions[0].status = "PENDING".to_owned();
            b.snapshot.entries.remove(0);
        }),
        ("dead-lettered without a dead letter", |b| {
            dead_letter(b, false);
        }),
        ("nothing waits for", |b| {
            dead_letter(b, true);
            b.snapshot.transactions[1].status = "PENDING".to_owned();
        }),
        ("0 events are parked", |b| {
            b.snapshot.accounts[0].parked_count = 1;
        }),
        ("an entry of no transaction", |b| {
            b.snapshot.entries[0].transaction_id = Uuid::new_v4();
        }),
        ("expected number 2", |b| b.snapshot.entries[1].entry_no = 3),
        ("expected number 2", |b| {
            b.snapshot.entries[1].balance_after_cents = 801;
        }),
        ("the entries make 2, 800", |b| {
            b.snapshot.accounts[0].balance_cents = 0;
        }),
        ("no result event", |b| {
            b.snapshot.results.pop();
        }),
        ("a second result", |b| {
            let mut second = b.snapshot.results[0].clone();
            second.headers[0].1 = Uuid::new_v4().to_string();
            b.snapshot.results.push(second);
        }),
        ("wrongly", |b| {
            b.snapshot.results[2].headers[1].1 = "transaction.processed".to_owned();
        }),
        ("was overtaken by", |b| b.snapshot.results.swap(0, 2)),
        ("comes behind", |b| b.snapshot.results.swap(0, 1)),
        ("refused for no reason", |b| {
            refuse_the_second(b, "insufficient_funds");
        }),
        ("refused for no reason", |b| {
            refuse_the_second(b, "balance_overflow");
        }),
        ("refused for no reason", |b| {
            refuse_the_second(b, "currency_mismatch");
        }),
        ("refused for no reason", |b| {
            refuse_the_second(b, "discarded");
        }),
        ("refused for no reason", |b| {
            refuse_the_second(b, "the moon");
        }),
        // As much as there is can be paid.
        ("refused for no reason", |b| {
            b.sent[2].payment.amount_cents = 800;
            b.snapshot.transactions[2].amount_cents = 800;
            b.snapshot.results[2] = result(2, &b.snapshot.transactions[2], None);
        }),
    ];
    for (number, (expected, spoil)) in table.into_iter().enumerate() {
        let wrongs = found(spoil);
        assert!(wrongs.contains(expected), "case {number}: {wrongs}");
    }
}

/// The second payment was not posted, and this is said of it.
fn end_the_second(snapshot: &mut Snapshot, status: &str, reason: &str) {
    let row = &mut snapshot.transactions[1];
    row.status = status.to_owned();
    row.failure_reason = Some(reason.to_owned());
    snapshot.entries.pop();
    snapshot.results.remove(1);
    snapshot.accounts[0].balance_cents = 500;
    snapshot.accounts[0].entry_count = 1;
}

/// The second payment, a credit, was refused.
fn refuse_the_second(books: &mut Books, reason: &str) {
    let snapshot = &mut books.snapshot;
    end_the_second(snapshot, "FAILED", reason);
    let told = result(1, &snapshot.transactions[1], None);
    snapshot.results.insert(1, told);
}

/// The second payment could not be applied.
fn dead_letter(books: &mut Books, with_letter: bool) {
    let snapshot = &mut books.snapshot;
    end_the_second(snapshot, "PROCESSING", "dead_lettered");
    if with_letter {
        snapshot.dead_letters.push(letter(snapshot, "DEAD"));
    }
}

/// The dead letter of the second payment.
fn letter(snapshot: &Snapshot, state: &str) -> DeadLetterRow {
    DeadLetterRow {
        id: Uuid::new_v4(),
        transaction_id: Some(snapshot.transactions[1].id),
        error_class: "retries_exhausted".to_owned(),
        state: state.to_owned(),
        replay_count: 0,
    }
}

#[test]
fn a_credit_may_be_refused_where_the_reason_holds() {
    let discarded = |books: &mut Books| {
        refuse_the_second(books, "discarded");
        let letter = letter(&books.snapshot, "DISCARDED");
        books.snapshot.dead_letters.push(letter);
    };
    assert_eq!(found(discarded), "");
    let suspended = |books: &mut Books| refuse_the_second(books, "account_suspended");
    assert_eq!(found(suspended), "");
    let too_much = |books: &mut Books| {
        books.sent[1].payment.amount_cents = i64::MAX;
        books.snapshot.transactions[1].amount_cents = i64::MAX;
        refuse_the_second(books, "balance_overflow");
    };
    assert_eq!(found(too_much), "");
}

#[test]
fn items_of_one_batch_that_change_places_are_found() {
    let together = |books: &mut Books| {
        let start = books.sent[0].first_sent;
        for sent in &mut books.sent {
            sent.first_sent = start;
        }
        books.sent[2].behind = Some(books.sent[1].payment.key.clone());
    };
    assert_eq!(found(together), "");
    let apart = found(|books| {
        together(books);
        books.snapshot.results.swap(1, 2);
    });
    assert!(apart.contains("results: left its place"), "{apart}");
    let posted = found(|books| {
        together(books);
        books.sent[0].behind = Some(books.sent[1].payment.key.clone());
    });
    assert!(posted.contains("entries: left its place"), "{posted}");
}

#[test]
fn a_dead_lettered_transaction_with_its_letter_is_right() {
    assert_eq!(found(|books| dead_letter(books, true)), "");
}

#[test]
fn an_overtaken_entry_is_found() {
    let wrongs = found(|books| {
        // The second payment was sent and acknowledged before the first.
        let (first, second) = books.sent.split_at_mut(1);
        std::mem::swap(&mut first[0].first_sent, &mut second[0].first_sent);
        let (first, second) = (&mut first[0].acknowledged, &mut second[0].acknowledged);
        let (first, second) = (first.as_mut().unwrap(), second.as_mut().unwrap());
        std::mem::swap(&mut first.0, &mut second.0);
    });
    assert!(wrongs.contains("entries: "), "{wrongs}");
}
