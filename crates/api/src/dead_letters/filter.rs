use chrono::{DateTime, Utc};
use common::types::{AccountId, DeadLetterClass};

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

    /// Whether an open letter of the account asked for, that died so, is meant by a replay of all that
    /// had died by a moment. A copy of a rejection never is: its transaction is final.
    pub(super) fn means(
        &self,
        class: DeadLetterClass,
        dead_at: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> bool {
        class != DeadLetterClass::Rejected
            && self.class.is_none_or(|asked| asked == class)
            && self.dead_from.is_none_or(|from| from <= dead_at)
            && self.dead_to.is_none_or(|to| dead_at < to)
            && dead_at <= until
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

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
        let (class, rejected) = (DeadLetterClass::RetriesExhausted, DeadLetterClass::Rejected);
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
            (ALL, class, dead_at, true),
            (ALL, class, after, true),
            (ALL, class, before, false),
            (ALL, rejected, after, false),
            (of(rejected), rejected, after, false),
            (of(class), class, after, true),
            (of(DeadLetterClass::Mismatch), class, after, false),
            (between(Some(dead_at), None), class, after, true),
            (between(Some(after), None), class, after, false),
            (between(None, Some(after)), class, after, true),
            (between(None, Some(dead_at)), class, after, false),
        ];
        for (filter, class, until, meant) in table {
            assert_eq!(
                filter.means(class, dead_at, until),
                meant,
                "{filter:?} {class} {until}"
            );
        }
    }
}
