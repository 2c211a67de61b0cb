use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The amount of one transaction in minor units of its currency (cents): 1 to `i64::MAX`. Whether
/// it is added or taken is said by the transaction's type.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(try_from = "i64", into = "i64")]
#[sqlx(transparent)]
pub struct AmountCents(i64);

/// An amount of 0 or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an amount must be at least 1 minor unit, not {0}")]
pub struct NotPositive(pub i64);

impl AmountCents {
    /// The amount as a plain number of minor units, 1 to `i64::MAX`.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for AmountCents {
    type Error = NotPositive;

    fn try_from(cents: i64) -> Result<Self, NotPositive> {
        if cents > 0 {
            Ok(Self(cents))
        } else {
            Err(NotPositive(cents))
        }
    }
}

impl From<AmountCents> for i64 {
    fn from(amount: AmountCents) -> Self {
        amount.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_amounts_are_amounts() {
        for refused in [0, -1, i64::MIN] {
            assert_eq!(AmountCents::try_from(refused), Err(NotPositive(refused)));
        }
        for accepted in [1, i64::MAX] {
            assert_eq!(AmountCents::try_from(accepted).unwrap().get(), accepted);
        }
    }

    #[test]
    fn a_negative_amount_does_not_deserialize() {
        assert!(serde_json::from_str::<AmountCents>("-5").is_err());
        assert!(serde_json::from_str::<AmountCents>("5.5").is_err());
        assert_eq!(serde_json::to_string(&AmountCents(5)).unwrap(), "5");
    }
}
