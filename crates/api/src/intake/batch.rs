//! What a batch's rows are answered: rules without I/O.

use std::collections::{HashMap, hash_map::Entry};

use chrono::{DateTime, Utc};
use common::types::{AccountId, AccountStatus, TransactionStatus};

use super::{
    IntakeError, NewTransaction, Outcome, Refusal,
    queue::{Answer, Row},
    sql::{Written, stored},
};
use crate::transactions::Transaction;

/// A row to write, and the rows behind it that ask for the very same: a statement does not see its
/// own rows, so they are answered from the first one's answer.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) first: Row,
    repeats: Vec<Row>,
}

impl Group {
    /// Answers the row, and its repeats as the replays they are.
    pub(super) fn answer(self, answer: Answer) {
        for repeat in self.repeats {
            repeat.answer(answer.clone().map(as_replay));
        }
        self.first.answer(answer);
    }
}

fn as_replay(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Created(transaction) => Outcome::Replayed(transaction),
        replayed_or_refused => replayed_or_refused,
    }
}

/// Groups rows for one statement, in which no (account, key) may stand twice. It ends before a row
/// that uses a key of the batch for other content: whether that is refused depends on what becomes
/// of the first, so it and all behind it are the rest, for a statement of their own.
pub(super) fn group(rows: Vec<Row>) -> (Vec<Group>, Vec<Row>) {
    let mut places: HashMap<(AccountId, String), usize> = HashMap::with_capacity(rows.len());
    let mut groups: Vec<Group> = Vec::with_capacity(rows.len());
    let mut rows = rows.into_iter();
    while let Some(row) = rows.next() {
        match places.entry((
            row.new.account_id,
            row.new.idempotency_key.as_str().to_owned(),
        )) {
            Entry::Vacant(place) => {
                place.insert(groups.len());
                groups.push(Group {
                    first: row,
                    repeats: Vec::new(),
                });
            }
            Entry::Occupied(place) => {
                let group = &mut groups[*place.get()];
                if !asks_the_same(&group.first.new, &row.new) {
                    return (groups, std::iter::once(row).chain(rows).collect());
                }
                group.repeats.push(row);
            }
        }
    }
    (groups, Vec::new())
}

fn asks_the_same(one: &NewTransaction, other: &NewTransaction) -> bool {
    one.amount_cents == other.amount_cents
        && one.currency == other.currency
        && one.transaction_type == other.transaction_type
}

/// A row's answer after its statement was committed. The stored key is looked at first, whatever
/// has become of the account since.
pub(super) fn decide(row: &Row, written: &Written) -> Outcome {
    if written.created {
        return Outcome::Created(as_created(row, written.now));
    }
    if let Some(stored) = stored(row, written) {
        // Found under the id made for this request: an earlier attempt was committed after all.
        return if stored.id == row.id {
            Outcome::Created(stored)
        } else {
            compare(&row.new, stored)
        };
    }
    Outcome::Refused(match (written.account_status, &written.account_currency) {
        (Some(AccountStatus::Active), Some(currency)) => Refusal::CurrencyMismatch {
            account_currency: currency.clone(),
        },
        (Some(AccountStatus::Suspended), _) => Refusal::AccountSuspended,
        _ => Refusal::UnknownAccount,
    })
}

/// The answer that an outcome is. Where an earlier attempt at the row may yet be committed, a refusal for
/// the account's sake is not certain: that attempt may have found the account otherwise.
pub(super) fn unless_uncertain(outcome: Outcome, may_be_written: bool) -> Answer {
    match outcome {
        // The key is another transaction's for ever, so no attempt of ours can be committed any more.
        Outcome::Refused(Refusal::KeyReused) => Ok(outcome),
        Outcome::Refused(_) if may_be_written => Err(IntakeError::OutcomeUnknown),
        certain => Ok(certain),
    }
}

/// Stored fields are compared, never bytes: the same payment may be written down differently.
fn compare(new: &NewTransaction, stored: Transaction) -> Outcome {
    let same = stored.amount_cents == new.amount_cents.get()
        && stored.currency == new.currency.as_str()
        && stored.transaction_type == new.transaction_type;
    if same {
        Outcome::Replayed(stored)
    } else {
        Outcome::Refused(Refusal::KeyReused)
    }
}

/// A row as it stands when it has just been inserted.
pub(super) fn as_created(row: &Row, created_at: DateTime<Utc>) -> Transaction {
    Transaction {
        id: row.id,
        account_id: row.new.account_id,
        amount_cents: row.new.amount_cents.get(),
        currency: row.new.currency.as_str().to_owned(),
        transaction_type: row.new.transaction_type,
        status: TransactionStatus::Pending,
        idempotency_key: row.new.idempotency_key.as_str().to_owned(),
        failure_reason: None,
        created_at,
        processed_at: None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use common::types::{TransactionId, TransactionType};
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::intake::{IdempotencyKey, queue::ticket};

    pub(crate) fn new_transaction(key: &str) -> NewTransaction {
        NewTransaction {
            account_id: AccountId(uuid::Uuid::nil()),
            amount_cents: 100.try_into().unwrap(),
            currency: "EUR".parse().unwrap(),
            transaction_type: TransactionType::Credit,
            idempotency_key: IdempotencyKey::try_from(key.to_owned()).unwrap(),
        }
    }

    fn row(key: &str) -> Row {
        ticket(TransactionId::new(), Instant::now(), new_transaction(key))
            .0
            .take()
            .unwrap()
    }

    fn written(status: Option<AccountStatus>, currency: &str) -> Written {
        Written {
            created: false,
            now: chrono::DateTime::UNIX_EPOCH,
            account_status: status,
            account_currency: status.map(|_| currency.to_owned()),
            stored_id: None,
            stored_amount_cents: None,
            stored_currency: None,
            stored_type: None,
            stored_status: None,
            stored_failure_reason: None,
            stored_created_at: None,
            stored_processed_at: None,
        }
    }

    fn with_stored(mut written: Written, stored: &Transaction) -> Written {
        written.stored_id = Some(stored.id);
        written.stored_amount_cents = Some(stored.amount_cents);
        written.stored_currency = Some(stored.currency.clone());
        written.stored_type = Some(stored.transaction_type);
        written.stored_status = Some(stored.status);
        written.stored_created_at = Some(stored.created_at);
        written
    }

    #[test]
    fn a_refusal_names_its_reason() {
        let row = row("k");
        let table = [
            (written(None, ""), Refusal::UnknownAccount),
            (
                written(Some(AccountStatus::Suspended), "EUR"),
                Refusal::AccountSuspended,
            ),
            (
                written(Some(AccountStatus::Active), "USD"),
                Refusal::CurrencyMismatch {
                    account_currency: "USD".to_owned(),
                },
            ),
        ];
        for (written, refusal) in table {
            assert_eq!(decide(&row, &written), Outcome::Refused(refusal));
        }
    }

    #[test]
    fn a_stored_key_is_looked_at_before_the_account() {
        let row = row("k");
        let original = Transaction {
            id: TransactionId::new(),
            ..as_created(&row, DateTime::UNIX_EPOCH)
        };
        for status in [
            Some(AccountStatus::Suspended),
            Some(AccountStatus::Active),
            None,
        ] {
            let found = with_stored(written(status, "USD"), &original);
            assert_eq!(decide(&row, &found), Outcome::Replayed(original.clone()));
        }
        let other = Transaction {
            amount_cents: 101,
            ..original
        };
        let found = with_stored(written(Some(AccountStatus::Active), "EUR"), &other);
        assert_eq!(decide(&row, &found), Outcome::Refused(Refusal::KeyReused));
    }

    #[test]
    fn a_row_found_under_its_own_id_was_created_by_an_earlier_attempt() {
        let row = row("k");
        let earlier = as_created(&row, DateTime::UNIX_EPOCH);
        let found = with_stored(written(Some(AccountStatus::Active), "EUR"), &earlier);
        assert_eq!(decide(&row, &found), Outcome::Created(earlier));
    }

    #[test]
    fn a_refusal_is_certain_only_if_no_earlier_attempt_may_be_written() {
        let transaction = as_created(&row("k"), DateTime::UNIX_EPOCH);
        let mismatch = Refusal::CurrencyMismatch {
            account_currency: "USD".to_owned(),
        };
        let refused = [Refusal::UnknownAccount, Refusal::AccountSuspended, mismatch];
        for outcome in refused.map(Outcome::Refused) {
            assert_eq!(
                unless_uncertain(outcome.clone(), false),
                Ok(outcome.clone())
            );
            let unknown = Err(IntakeError::OutcomeUnknown);
            assert_eq!(unless_uncertain(outcome, true), unknown);
        }
        let certain = [
            Outcome::Created(transaction.clone()),
            Outcome::Replayed(transaction),
            Outcome::Refused(Refusal::KeyReused),
        ];
        for outcome in certain {
            assert_eq!(unless_uncertain(outcome.clone(), true), Ok(outcome));
        }
    }

    #[tokio::test]
    async fn a_repeat_is_answered_as_its_first_one() {
        let (mut groups, rest) = group(vec![row("k"), row("k")]);
        assert!(rest.is_empty());
        let group = groups.remove(0);
        let transaction = as_created(&group.first, DateTime::UNIX_EPOCH);
        let outcomes = [
            (
                Outcome::Created(transaction.clone()),
                Outcome::Replayed(transaction),
            ),
            (
                Outcome::Refused(Refusal::UnknownAccount),
                Outcome::Refused(Refusal::UnknownAccount),
            ),
        ];
        for (first, repeat) in outcomes {
            assert_eq!(as_replay(first), repeat);
        }
    }

    #[tokio::test]
    async fn whoever_repeats_is_told_as_little_as_the_first() {
        let (waiting, mut first) =
            ticket(TransactionId::new(), Instant::now(), new_transaction("k"));
        let (also, mut repeat) = ticket(TransactionId::new(), Instant::now(), new_transaction("k"));
        let (mut groups, _) = group(vec![waiting.take().unwrap(), also.take().unwrap()]);
        groups.remove(0).answer(Err(IntakeError::OutcomeUnknown));
        assert_eq!(
            first.answered().await,
            Some(Err(IntakeError::OutcomeUnknown))
        );
        assert_eq!(
            repeat.answered().await,
            Some(Err(IntakeError::OutcomeUnknown))
        );
    }

    #[test]
    fn a_batch_ends_before_a_key_is_used_for_other_content() {
        let other = NewTransaction {
            amount_cents: 7.try_into().unwrap(),
            ..new_transaction("k")
        };
        let other = ticket(TransactionId::new(), Instant::now(), other)
            .0
            .take()
            .unwrap();
        let (groups, rest) = group(vec![row("k"), row("l"), other, row("m")]);
        assert_eq!(groups.len(), 2);
        assert_eq!(rest.len(), 2);
        assert_eq!(rest[1].new.idempotency_key.as_str(), "m");
    }

    proptest! {
        #[test]
        fn grouping_keeps_the_order_and_every_row(keys in proptest::collection::vec("[a-e]", 0..40)) {
            let rows: Vec<Row> = keys.iter().map(|key| row(key)).collect();
            let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
            let (groups, rest) = group(rows);
            prop_assert!(rest.is_empty());
            let place = |row: &Row| ids.iter().position(|id| *id == row.id);
            prop_assert!(groups.is_sorted_by_key(|group| place(&group.first)));
            let distinct: std::collections::HashSet<_> = keys.iter().collect();
            prop_assert_eq!(groups.len(), distinct.len());
            let repeats: usize = groups.iter().map(|group| group.repeats.len()).sum();
            prop_assert_eq!(groups.len() + repeats, ids.len());
        }
    }
}
