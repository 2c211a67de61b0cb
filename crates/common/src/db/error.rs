use sqlx::{Error, postgres::PgDatabaseError};

/// The routine of PostgreSQL that refuses SERIALIZABLE on a standby. It does so with the SQLSTATE of any
/// feature that is missing (0A000) and in words that may be translated: nothing else tells it apart.
const REFUSES_SERIALIZABLE: &str = "GetSerializableTransactionSnapshot";

/// What to do about a database error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The server or the way to it fails, or two transactions collided: the same work succeeds
    /// later, unchanged.
    Transient,
    /// Schema, grants or the server itself are wrong: every work would fail, until someone mends it.
    Systemic,
    /// This very work fails: its data breaks a rule of the database.
    Data,
}

impl ErrorClass {
    /// Classifies by SQLSTATE (PostgreSQL manual, appendix A); an error that is not the server's is
    /// the connection's.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Database(_) if takes_no_writes(error) => Self::Transient,
            Error::Database(database) => database
                .code()
                .map_or(Self::Systemic, |code| Self::of_sqlstate(&code)),
            Error::Io(_)
            | Error::Tls(_)
            | Error::Protocol(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed => Self::Transient,
            _ => Self::Systemic,
        }
    }

    /// Classifies an error of the server by its SQLSTATE.
    #[must_use]
    pub fn of_sqlstate(code: &str) -> Self {
        match (code.get(..2), code) {
            // 25006: a standby before its promotion, or a database that is read-only for now; 25P03: our idle transaction was cut off;
            // 55P03: a lock not had in time; 3D000 and 28P01 while a cluster is being restored are
            // not among them: somebody must mend those.
            (Some("08" | "40" | "53" | "57" | "58"), _) | (_, "25006" | "25P03" | "55P03") => {
                Self::Transient
            }
            // What no work could do anything about: missing features, bad sessions and statements,
            // credentials, databases, schemas, syntax, rights, objects not in the state they must be in,
            // configuration, foreign data, the server's own faults.
            (
                Some(
                    "0A" | "0L" | "0P" | "25" | "26" | "28" | "34" | "3D" | "3F" | "42" | "55"
                    | "F0" | "HV" | "XX",
                ),
                _,
            ) => Self::Systemic,
            // Data, constraints, and whatever a function or a trigger raises over them.
            _ => Self::Data,
        }
    }

    /// The name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Systemic => "systemic",
            Self::Data => "data",
        }
    }
}

/// Whether the server can be read and not written for now: it is a standby, or
/// `default_transaction_read_only` is on. The session may stay read-only when others are not any more.
#[must_use]
pub fn takes_no_writes(error: &Error) -> bool {
    let database = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    database.is_some_and(|error| refuses_writes(error.code(), error.routine()))
}

fn refuses_writes(code: &str, routine: Option<&str>) -> bool {
    match code {
        "25006" => true,
        "0A000" => routine == Some(REFUSES_SERIALIZABLE),
        _ => false,
    }
}

/// Whether two transactions collided (40001, 40P01): nothing was written, and the same transaction
/// may succeed at once.
#[must_use]
pub fn is_serialization_failure(error: &Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

/// The name of the constraint an error broke, if it is that kind of error.
#[must_use]
pub fn constraint(error: &Error) -> Option<&str> {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::constraint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_its_class() {
        let table = [
            ("08006", ErrorClass::Transient),
            ("40001", ErrorClass::Transient),
            ("40P01", ErrorClass::Transient),
            ("53300", ErrorClass::Transient),
            ("57014", ErrorClass::Transient),
            ("57P01", ErrorClass::Transient),
            ("58030", ErrorClass::Transient),
            ("25006", ErrorClass::Transient),
            ("25P03", ErrorClass::Transient),
            ("55P03", ErrorClass::Transient),
            ("42501", ErrorClass::Systemic),
            ("42703", ErrorClass::Systemic),
            ("XX000", ErrorClass::Systemic),
            ("28P01", ErrorClass::Systemic),
            ("3D000", ErrorClass::Systemic),
            ("23505", ErrorClass::Data),
            ("22003", ErrorClass::Data),
            ("P0001", ErrorClass::Data),
            ("45000", ErrorClass::Data),
            ("21000", ErrorClass::Data),
            ("38001", ErrorClass::Data),
            ("54000", ErrorClass::Data),
            ("0A000", ErrorClass::Systemic),
            ("26000", ErrorClass::Systemic),
            ("55000", ErrorClass::Systemic),
        ];
        for (code, class) in table {
            assert_eq!(ErrorClass::of_sqlstate(code), class, "{code}");
        }
    }

    #[test]
    fn a_standby_is_told_from_a_feature_that_is_missing() {
        let table = [
            ("25006", Some("PreventCommandIfReadOnly"), true),
            ("0A000", Some("GetSerializableTransactionSnapshot"), true),
            // A statement that was prepared before its table was changed.
            ("0A000", Some("RevalidateCachedQuery"), false),
            ("0A000", None, false),
            ("42501", None, false),
        ];
        for (code, routine, expected) in table {
            assert_eq!(
                refuses_writes(code, routine),
                expected,
                "{code} {routine:?}"
            );
        }
        assert!(!takes_no_writes(&Error::PoolTimedOut));
    }

    #[test]
    fn a_lost_connection_is_transient() {
        let lost = Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(ErrorClass::of(&lost), ErrorClass::Transient);
        assert_eq!(ErrorClass::of(&Error::PoolTimedOut), ErrorClass::Transient);
        assert_eq!(ErrorClass::of(&Error::RowNotFound), ErrorClass::Systemic);
    }
}
