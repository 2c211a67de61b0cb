use chrono::{DateTime, Utc};
use common::types::{AccountId, DeadLetterClass};

use super::sql::Open;

/// What a list of dead letters, or a replay of many, is narrowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) account_id: Option<AccountId>,
    pub(super) class: Option<DeadLetterClass>,
    /// The first moment.
    pub(super) dead_from: Option<DateTime<Utc>>,
    /// The moment behind the last.
    pub(super) dead_to: Option<DateTime<Utc>>,
}

impl Filter {
    /// Whether the times leave nothing that could match, which is a mistake.
    pub(super) fn ends_before_it_begins(&self) -> bool {
        matches!((self.dead_from, self.dead_to), (Some(from), Some(to)) if from > to)
    }

    /// Whether an open letter of the account asked for is meant by a replay of all that had died by a
    /// moment. A copy of a rejection never is: its transaction is final.
    pub(super) fn means(&self, letter: &Open, until: DateTime<Utc>) -> bool {
        letter.class != DeadLetterClass::Rejected
            && self.class.is_none_or(|class| class == letter.class)
            && self.dead_from.is_none_or(|from| from <= letter.dead_at)
            && self.dead_to.is_none_or(|to| letter.dead_at < to)
            && letter.dead_at <= until
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::{super::model::DeadLetterId, *};

    const ALL: Filter = Filter {
        account_id: None,
        class: None,
        dead_from: None,
        dead_to: None,
    };

    #[test]
    fn a_replay_of_many_means_what_its_filter_says_and_nothing_that_died_since() {
        let dead_at: DateTime<Utc> = "2026-11-21T10:00:00Z".parse().unwrap();
        let (before, after) = (
            dead_at - TimeDelta::microseconds(1),
            dead_at + TimeDelta::microseconds(1),
        );
        let class = DeadLetterClass::RetriesExhausted;
        let letter = Open {
            id: DeadLetterId(Uuid::nil()),
            class,
            dead_at,
        };
        let rejected = Open {
            class: DeadLetterClass::Rejected,
            ..letter
        };
        let of = |class| Filter {
            class: Some(class),
            ..ALL
        };
        let between = |from, to| Filter {
            dead_from: from,
            dead_to: to,
            ..ALL
        };
        let table = [
            (ALL, letter, dead_at, true),
            (ALL, letter, after, true),
            (ALL, letter, before, false),
            (ALL, rejected, after, false),
            (of(DeadLetterClass::Rejected), rejected, after, false),
            (of(class), letter, after, true),
            (of(DeadLetterClass::Mismatch), letter, after, false),
            (between(Some(dead_at), None), letter, after, true),
            (between(Some(after), None), letter, after, false),
            (between(None, Some(after)), letter, after, true),
            (between(None, Some(dead_at)), letter, after, false),
        ];
        for (filter, letter, until, meant) in table {
            assert_eq!(
                filter.means(&letter, until),
                meant,
                "{filter:?} {letter:?} {until}"
            );
        }
    }
}
