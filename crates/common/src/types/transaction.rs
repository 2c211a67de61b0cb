use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that names none of the values of a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be one of {}", .0.join(", "))]
pub struct UnknownName(pub &'static [&'static str]);

/// A closed set of names, the same in SQL (as text), JSON, metrics and documents.
macro_rules! names {
    (
        $(#[$doc:meta])* $name:ident, $case:literal;
        $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(rename_all = $case)]
        #[sqlx(type_name = "text", rename_all = $case)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All names there are.
            pub const NAMES: &'static [&'static str] = &[$($text),*];

            /// The name as SQL, JSON and metrics have it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownName(Self::NAMES)),
                }
            }
        }
    };
}

names! {
    /// What a transaction does to its account's balance.
    TransactionType, "UPPERCASE";
    /// Takes the amount.
    Debit = "DEBIT",
    /// Adds the amount.
    Credit = "CREDIT",
}

names! {
    /// How far a transaction has come. PROCESSED and FAILED are final.
    TransactionStatus, "UPPERCASE";
    /// Accepted, not yet taken up.
    Pending = "PENDING",
    /// Taken up, and neither posted nor refused yet.
    Processing = "PROCESSING",
    /// Posted to the ledger. Final.
    Processed = "PROCESSED",
    /// Refused, with a reason. Final: nothing was posted, and the client may pay again.
    Failed = "FAILED",
}

impl TransactionStatus {
    /// Whether this state never changes again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Processed | Self::Failed)
    }
}

names! {
    /// Whether an account takes transactions.
    AccountStatus, "UPPERCASE";
    /// Takes debits and credits.
    Active = "ACTIVE",
    /// Refuses both.
    Suspended = "SUSPENDED",
}

names! {
    /// Why a transaction ended FAILED; or, while it is PROCESSING, that its event is a dead letter.
    FailureReason, "snake_case";
    /// The debit was larger than the balance.
    InsufficientFunds = "insufficient_funds",
    /// The account was suspended when the transaction's turn came.
    AccountSuspended = "account_suspended",
    /// The transaction's currency is not the account's.
    CurrencyMismatch = "currency_mismatch",
    /// The credit would have taken the balance beyond `i64::MAX` minor units.
    BalanceOverflow = "balance_overflow",
    /// Its event was given up and waits for somebody to replay or discard it. Not final: the
    /// transaction is PROCESSING.
    DeadLettered = "dead_lettered",
    /// Its event was given up, and an operator ended it so.
    Discarded = "discarded",
}

pub(super) use names;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_sql_and_text_name_alike() {
        for name in TransactionStatus::NAMES {
            let status: TransactionStatus = name.parse().unwrap();
            assert_eq!(status.as_str(), *name);
            assert_eq!(
                serde_json::to_string(&status).unwrap(),
                format!("\"{name}\"")
            );
        }
        for name in FailureReason::NAMES {
            let reason: FailureReason = name.parse().unwrap();
            assert_eq!(
                serde_json::to_string(&reason).unwrap(),
                format!("\"{name}\"")
            );
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = "credit".parse::<TransactionType>().unwrap_err();
        assert_eq!(error.to_string(), "must be one of DEBIT, CREDIT");
    }
}
