//! What a failure is: which way the worker goes from here.

mod tracker;

use common::db::{ErrorClass, takes_no_writes};
pub use tracker::Failures;

use crate::slice::ApplyError;

/// The longest text kept of an error.
const TEXT_CHARS_MAX: usize = 1_024;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Two transactions collided: try again soon.
    Collision,
    /// The database is away or busy: try again until it is back. No attempt is counted.
    Away,
    /// A statement took too long. Fewer events may be done in time; of one event it is as [`Away`].
    ///
    /// [`Away`]: Self::Away
    TooLong,
    /// Every event would fail: stand still until somebody has mended the cause, and give up nothing.
    Systemic,
    /// This very event fails, or one of several: park it, and go on with the rest.
    OfOneEvent,
}

/// What to do about an error of applying events.
#[must_use]
pub fn classify(error: &ApplyError) -> Class {
    match error {
        ApplyError::RowsAffected { .. }
        | ApplyError::TableRowsAffected { .. }
        | ApplyError::Payload(_) => Class::Systemic,
        ApplyError::Database(error) => of_database(error),
    }
}

fn of_database(error: &sqlx::Error) -> Class {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    match code {
        Some(code) if !takes_no_writes(error) => of_sqlstate(&code),
        _ => of_class(ErrorClass::of(error)),
    }
}

/// The codes are listed in the PostgreSQL manual, appendix A.
fn of_sqlstate(code: &str) -> Class {
    match code {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Class::Collision,
        // query_canceled: by statement_timeout
        "57014" => Class::TooLong,
        _ => of_class(ErrorClass::of_sqlstate(code)),
    }
}

const fn of_class(class: ErrorClass) -> Class {
    match class {
        ErrorClass::Transient => Class::Away,
        ErrorClass::Systemic => Class::Systemic,
        ErrorClass::Data => Class::OfOneEvent,
    }
}

/// What two failures have in common that have one cause: the SQLSTATE with the constraint, or else with
/// the message without what is of the one event (ids and numbers).
#[must_use]
pub fn signature(error: &ApplyError) -> String {
    let ApplyError::Database(error) = error else {
        return generalized(&error.to_string());
    };
    let Some(database) = error.as_database_error() else {
        return generalized(&error.to_string());
    };
    let code = database.code().unwrap_or_default();
    match database.constraint() {
        Some(constraint) => format!("{code} {constraint}"),
        None => format!("{code} {}", generalized(database.message())),
    }
}

/// Whether two failures, as [`describe`] tells them, have one cause, as far as that can be told.
#[must_use]
pub fn are_alike(one: &str, other: &str) -> bool {
    generalized(one) == generalized(other)
}

/// A message with a `#` for each number and id.
fn generalized(message: &str) -> String {
    let is_of_one = |word: &str| {
        word.contains(|c: char| c.is_ascii_digit())
            || (word.len() >= 4 && word.chars().all(|c| c.is_ascii_hexdigit()))
    };
    let mut general = String::with_capacity(message.len());
    for piece in message.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
        general.push_str(if is_of_one(word) { "#" } else { word });
        general.push_str(&piece[word.len()..]);
    }
    general
}

/// What failed, on one line, as it is logged and kept: the database's own words with the SQLSTATE, or the
/// error and its causes.
#[must_use]
pub fn describe(error: &ApplyError) -> String {
    let database = match error {
        ApplyError::Database(error) => error.as_database_error(),
        _ => None,
    };
    let told = database.map_or_else(
        || chain(error),
        |database| {
            let code = database.code().unwrap_or_default();
            format!("{} (SQLSTATE {code})", database.message())
        },
    );
    storable(&told)
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| {
        let cause = cause.to_string();
        // Errors of sqlx repeat what their causes say.
        if told.ends_with(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    })
}

/// A text as a column takes it: bounded, and without NUL, which JSON can bring and PostgreSQL's text
/// cannot hold.
pub(crate) fn storable(text: &str) -> String {
    let kept = text.chars().take(TEXT_CHARS_MAX);
    kept.map(|c| if c == '\0' { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posting::Rows;

    #[test]
    fn each_sqlstate_has_its_class() {
        let table: [(Class, &[&str]); 5] = [
            (Class::Collision, &["40001", "40P01"]),
            (
                Class::Away,
                &[
                    "40003", "08006", "08003", "53100", "53300", "57P01", "57P03", "58030",
                    "25006", "25P03", "55P03",
                ],
            ),
            (Class::TooLong, &["57014"]),
            (
                Class::Systemic,
                &[
                    "42501", "42P01", "42703", "XX000", "XX001", "0A000", "26000", "28P01",
                    "34000", "3D000", "55000", "F0000", "HV000",
                ],
            ),
            (
                Class::OfOneEvent,
                &[
                    "22003", "22P02", "23505", "23514", "23502", "P0001", "P0002", "45000",
                    "38000", "54000",
                ],
            ),
        ];
        for (class, codes) in table {
            for code in codes {
                assert_eq!(of_sqlstate(code), class, "{code}");
            }
        }
    }

    #[test]
    fn what_is_not_the_servers_word_is_the_connections_or_ours() {
        let silent = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
        let payload = serde_json::from_str::<i32>("x").unwrap_err();
        let rows = Rows {
            entries: 1,
            accounts: 1,
            transactions: 1,
            results: 1,
        };
        let table = [
            (ApplyError::Database(silent), Class::Away),
            (ApplyError::Database(sqlx::Error::PoolTimedOut), Class::Away),
            (
                ApplyError::Database(sqlx::Error::RowNotFound),
                Class::Systemic,
            ),
            (ApplyError::Payload(payload), Class::Systemic),
            (
                ApplyError::RowsAffected {
                    planned: rows,
                    written: rows,
                },
                Class::Systemic,
            ),
        ];
        for (error, class) in table {
            assert_eq!(classify(&error), class, "{error}");
        }
    }

    #[test]
    fn messages_of_one_cause_are_alike_and_those_of_others_are_not() {
        let one = generalized("no account 019ab6f0-dead-7bcd-8aaa-0123456789ab: 500 cents too few");
        let other = generalized("no account 019cccc1-0001-7eee-beef-ba9876543210: 1 cents too few");
        assert_eq!(one, other);
        assert_eq!(one, "no account #-#-#-#-#: # cents too few");
        assert_ne!(generalized("no account 1"), generalized("no currency 1"));
        assert!(are_alike(
            "no account 1 (SQLSTATE P0001)",
            "no account 2 (SQLSTATE P0001)"
        ));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_cause_is_told_once() {
        let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "silent");
        let told = chain(&sqlx::Error::Io(silent));
        assert_eq!(told.matches("silent").count(), 1, "{told}");
        let inner = std::io::Error::new(std::io::ErrorKind::TimedOut, "inner");
        assert_eq!(chain(&Outer(inner)), "outer: inner");
    }

    #[test]
    fn a_text_is_bounded_and_has_no_nul() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        assert_eq!(storable(&"ä".repeat(5_000)).chars().count(), TEXT_CHARS_MAX);
    }
}
