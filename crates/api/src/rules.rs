//! The rules of single fields, as `validator` asks for them and as queries and paths use them.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use common::types::{AccountStatus, Currency, DeadLetterClass, TransactionType};
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
pub(crate) const DEAD_LETTER_STATE_RULE: &str = "must be DEAD, REPLAYED or DISCARDED";
pub(crate) const DEAD_LETTER_CLASS_RULE: &str = "must be undecodable, unknown_schema_version, mismatch, \
                                                 retries_exhausted, rejected or refused_by_broker";
pub(crate) const TIME_RULE: &str =
    "must be an RFC 3339 time such as 2026-11-21T10:00:00Z (in a query, + is written %2B)";
pub(crate) const DEAD_FROM_RULE: &str = "must not be later than dead_to";
const REASON_RULE: &str =
    "must be 1 to 500 characters on one line, of which one at least is no space";
pub(crate) const REASON_CHARACTERS_MAX: usize = 500;

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

/// A UUID that may be the nil one.
pub(crate) fn any_uuid(text: &str) -> Result<(), ValidationError> {
    check(parse_uuid(text).is_some(), "invalid_uuid", UUID_RULE)
}

/// A time with its offset from UTC (RFC 3339, section 5.6).
pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(Into::into)
}

pub(crate) fn time(text: &str) -> Result<(), ValidationError> {
    check(parse_time(text).is_some(), "invalid_time", TIME_RULE)
}

pub(crate) fn dead_letter_class(name: &str) -> Result<(), ValidationError> {
    check(
        name.parse::<DeadLetterClass>().is_ok(),
        "unknown_class",
        DEAD_LETTER_CLASS_RULE,
    )
}

/// Words of an operator, which stand in the record of an action and in a line of the log.
pub(crate) fn reason(words: &str) -> Result<(), ValidationError> {
    let fits = words.chars().count() <= REASON_CHARACTERS_MAX
        && !words.chars().any(char::is_control)
        && !words.trim().is_empty();
    check(fits, "invalid_reason", REASON_RULE)
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
    use common::types::DeadLetterState;

    use super::*;

    #[test]
    fn a_rule_names_all_that_is_allowed() {
        for (rule, names) in [
            (DEAD_LETTER_STATE_RULE, DeadLetterState::NAMES),
            (DEAD_LETTER_CLASS_RULE, DeadLetterClass::NAMES),
        ] {
            assert!(names.iter().all(|name| rule.contains(name)), "{rule}");
        }
    }

    #[test]
    fn a_reason_can_be_read_on_one_line() {
        assert!(reason("the trigger was mended").is_ok() && reason(&"ü".repeat(500)).is_ok());
        for refused in [
            "",
            "  ",
            "\u{a0}",
            "a\nb",
            "a\0",
            "\u{85}",
            &"x".repeat(501),
        ] {
            assert!(reason(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_time_has_an_offset() {
        let time = parse_time("2026-11-21T11:00:00.123456+01:00").unwrap();
        assert_eq!(time.to_rfc3339(), "2026-11-21T10:00:00.123456+00:00");
        for refused in [
            "",
            "2026-11-21",
            "2026-11-21T10:00:00",
            "1763719200",
            "2026-02-30T00:00:00Z",
        ] {
            assert_eq!(parse_time(refused), None, "{refused:?}");
        }
    }

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
