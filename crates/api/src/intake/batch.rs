//! What a batch's rows are answered: rules without I/O.

use std::collections::HashMap;

use common::types::{AccountId, AccountStatus, TransactionStatus};

use super::{
    NewTransaction, Outcome, Refusal,
    queue::Row,
    sql::{Written, stored},
};
use crate::transactions::Transaction;

/// Parts a batch into rows of which no (account, key) stands twice, and the later ones of the same:
/// a statement does not see its own rows, so these are answered from the first one's answer.
pub(super) fn part_repeats(rows: Vec<Row>) -> (Vec<Row>, Vec<Row>) {
    let mut first: HashMap<(AccountId, &str), usize> = HashMap::with_capacity(rows.len());
    let mut is_first = vec![true; rows.len()];
    for (at, row) in rows.iter().enumerate() {
        let key = (row.new.account_id, row.new.idempotency_key.as_str());
        is_first[at] = *first.entry(key).or_insert(at) == at;
    }
    let mut is_first = is_first.into_iter();
    rows.into_iter()
        .partition(|_| is_first.next().unwrap_or(true))
}

/// What the first rows left under their keys, for the repeats behind them.
#[derive(Default)]
pub(super) struct Left(HashMap<(AccountId, String), Transaction>);

impl Left {
    pub(super) fn record(&mut self, new: &NewTransaction, outcome: &Outcome) {
        if let Outcome::Created(transaction) | Outcome::Replayed(transaction) = outcome {
            let key = (new.account_id, new.idempotency_key.as_str().to_owned());
            self.0.insert(key, transaction.clone());
        }
    }

    /// The answer to a repeat; none if the first row left nothing: then the repeat is a first one.
    pub(super) fn answer(&self, new: &NewTransaction) -> Option<Outcome> {
        let key = (new.account_id, new.idempotency_key.as_str().to_owned());
        self.0
            .get(&key)
            .map(|transaction| compare(new, transaction.clone()))
    }
}

/// A row's answer after its statement was committed. The stored key is looked at first, whatever
/// has become of the account since.
pub(super) fn decide(row: &Row, written: &Written) -> Outcome {
    if written.created {
        return Outcome::Created(as_created(row, written));
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

fn as_created(row: &Row, written: &Written) -> Transaction {
    Transaction {
        id: row.id,
        account_id: row.new.account_id,
        amount_cents: row.new.amount_cents.get(),
        currency: row.new.currency.as_str().to_owned(),
        transaction_type: row.new.transaction_type,
        status: TransactionStatus::Pending,
        idempotency_key: row.new.idempotency_key.as_str().to_owned(),
        failure_reason: None,
        created_at: written.now,
        processed_at: None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use common::types::{TransactionId, TransactionType};
    use proptest::prelude::*;

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
        ticket(TransactionId::new(), new_transaction(key))
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
            ..as_created(&row, &written(None, ""))
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
        let earlier = as_created(&row, &written(None, ""));
        let found = with_stored(written(Some(AccountStatus::Active), "EUR"), &earlier);
        assert_eq!(decide(&row, &found), Outcome::Created(earlier));
    }

    #[test]
    fn a_repeat_is_answered_from_the_first_one() {
        let first = row("k");
        let created = Outcome::Created(as_created(&first, &written(None, "")));
        let mut left = Left::default();
        left.record(&first.new, &created);
        assert!(matches!(
            left.answer(&new_transaction("k")),
            Some(Outcome::Replayed(_))
        ));
        let other = NewTransaction {
            transaction_type: TransactionType::Debit,
            ..first.new
        };
        assert_eq!(
            left.answer(&other),
            Some(Outcome::Refused(Refusal::KeyReused))
        );
    }

    #[test]
    fn a_refused_first_leaves_its_repeat_to_be_tried() {
        let mut left = Left::default();
        left.record(
            &new_transaction("k"),
            &Outcome::Refused(Refusal::AccountSuspended),
        );
        assert_eq!(left.answer(&new_transaction("k")), None);
    }

    proptest! {
        #[test]
        fn parting_keeps_the_order_and_every_row(keys in proptest::collection::vec("[a-e]", 0..40)) {
            let rows: Vec<Row> = keys.iter().map(|key| row(key)).collect();
            let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
            let (first, repeats) = part_repeats(rows);
            for part in [&first, &repeats] {
                prop_assert!(part.is_sorted_by_key(|row| ids.iter().position(|id| *id == row.id)));
            }
            let distinct: std::collections::HashSet<_> = keys.iter().collect();
            prop_assert_eq!(first.len(), distinct.len());
            prop_assert_eq!(first.len() + repeats.len(), ids.len());
        }
    }
}
