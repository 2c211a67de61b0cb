//! The rules of single fields, as `validator` asks for them and as queries and paths use them.

use std::borrow::Cow;

use common::types::{AccountStatus, Currency, TransactionType};
use uuid::Uuid;
use validator::ValidationError;

use crate::intake::IdempotencyKey;

pub(crate) const UUID_RULE: &str =
    "must be a UUID of 36 characters such as 018f4e6c-0000-7000-8000-000000000001";
const KEY_RULE: &str = "must be 1 to 255 printable ASCII characters";
const CURRENCY_RULE: &str = "must be an ISO 4217 currency code in capitals, such as EUR";
pub(crate) const TYPE_RULE: &str = "must be DEBIT or CREDIT";
pub(crate) const STATUS_RULE: &str = "must be PENDING, PROCESSING, PROCESSED or FAILED";
pub(crate) const ACCOUNT_STATUS_RULE: &str = "must be ACTIVE or SUSPENDED";

const UUID_CHARACTERS: usize = 36;

/// A UUID in its one usual form: the others that exist (without hyphens, in braces, as a URN) are
/// in no schema of ours.
pub(crate) fn parse_uuid(text: &str) -> Option<Uuid> {
    (text.len() == UUID_CHARACTERS)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
}

/// A UUID that may name something: the nil UUID names nothing (RFC 9562, section 5.9).
pub(crate) fn uuid(text: &str) -> Result<(), ValidationError> {
    check(
        parse_uuid(text).is_some_and(|id| !id.is_nil()),
        "invalid_uuid",
        UUID_RULE,
    )
}

pub(crate) fn currency(code: &str) -> Result<(), ValidationError> {
    check(
        code.parse::<Currency>().is_ok(),
        "unknown_currency",
        CURRENCY_RULE,
    )
}

pub(crate) fn transaction_type(name: &str) -> Result<(), ValidationError> {
    check(
        name.parse::<TransactionType>().is_ok(),
        "unknown_type",
        TYPE_RULE,
    )
}

pub(crate) fn account_status(name: &str) -> Result<(), ValidationError> {
    check(
        name.parse::<AccountStatus>().is_ok(),
        "unknown_status",
        ACCOUNT_STATUS_RULE,
    )
}

pub(crate) fn idempotency_key(key: &str) -> Result<(), ValidationError> {
    let valid = IdempotencyKey::try_from(key.to_owned()).is_ok();
    check(valid, "invalid_idempotency_key", KEY_RULE)
}

fn check(valid: bool, code: &'static str, rule: &'static str) -> Result<(), ValidationError> {
    if valid {
        Ok(())
    } else {
        Err(ValidationError::new(code).with_message(Cow::Borrowed(rule)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_in_its_usual_form() {
        let id = "018f4e6c-0000-7000-8000-00000000000a";
        assert!(uuid(id).is_ok() && uuid(&id.to_uppercase()).is_ok());
        for refused in [
            "",
            "018f4e6c00007000800000000000000a",
            "{018f4e6c-0000-7000-8000-00000000000a}",
            "018f4e6c-0000-7000-8000-00000000000g",
            "00000000-0000-0000-0000-000000000000",
            "018f4e6c-0000-7000-8000-00000000000\0",
        ] {
            assert!(uuid(refused).is_err(), "{refused:?}");
        }
    }
}
