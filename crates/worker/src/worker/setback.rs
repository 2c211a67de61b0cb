use std::io;

use crate::{
    failure::{Class, classify, describe},
    slice::ApplyError,
};

/// Why a part of a slice is not worked off yet.
#[derive(Debug)]
pub(super) enum Setback {
    /// Two transactions collided: soon again.
    Collision(ApplyError),
    /// The database is away or busy: again until it is back.
    Away(ApplyError),
    /// A statement took too long: again in halves.
    TooLong(ApplyError),
    /// One of several events fails by itself: look for it in halves.
    OneOfMany,
    /// The only record of the part fails by itself.
    Alone(ApplyError),
    /// Nothing could be applied: again until somebody has mended the cause, which is this, or what all the
    /// failures together have shown.
    Systemic(Option<String>),
}

impl Setback {
    /// What an error means to a part of so many records.
    pub(super) fn of(error: ApplyError, records: usize) -> Self {
        match classify(&error) {
            Class::Collision => Self::Collision(error),
            Class::TooLong if records > 1 => Self::TooLong(error),
            Class::Away | Class::TooLong => Self::Away(error),
            Class::OfOneEvent if records > 1 => Self::OneOfMany,
            Class::OfOneEvent => Self::Alone(error),
            Class::Systemic => Self::Systemic(Some(describe(&error))),
        }
    }

    /// What it means where the attempt before it, at the same part, had no answer in time. Once, that may
    /// be a server that went away; the second time the part may be too much: it would be tried whole for
    /// ever, where half of it would be done.
    pub(super) fn behind(self, was_silent: bool, records: usize) -> Self {
        match self {
            Self::Away(error) if was_silent && records > 1 && is_silence(&error) => {
                Self::TooLong(error)
            }
            setback => setback,
        }
    }

    /// Whether there was no answer in time.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Away(error) if is_silence(error))
    }

    /// Whether the part is tried again as two.
    pub(super) const fn divides(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::OneOfMany)
    }

    /// The name in metrics.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Collision(_) => "collision",
            Self::Away(_) => "away",
            Self::TooLong(_) => "too_long",
            Self::OneOfMany | Self::Alone(_) => "of_one_event",
            Self::Systemic(_) => "systemic",
        }
    }
}

/// The limit of an attempt has passed: the statements of one together may take longer than any of them.
fn is_silence(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Database(sqlx::Error::Io(error))
        if error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed_out() -> ApplyError {
        ApplyError::Database(sqlx::Error::Io(io::ErrorKind::TimedOut.into()))
    }

    #[test]
    fn a_part_that_takes_too_long_twice_is_halved_and_one_record_waits() {
        let first = Setback::of(timed_out(), 10).behind(false, 10);
        assert!(first.is_silence() && !first.divides());
        let second = Setback::of(timed_out(), 10).behind(first.is_silence(), 10);
        assert!(second.divides(), "{second:?}");
        // Each half has two attempts of its own.
        assert!(!second.is_silence());
        assert!(!Setback::of(timed_out(), 1).behind(true, 1).divides());
        // Who knows that the database is away divides nothing.
        let lost = Setback::of(ApplyError::Database(sqlx::Error::PoolTimedOut), 10);
        assert!(!lost.behind(true, 10).divides());
    }

    #[test]
    fn what_a_part_does_next_depends_on_how_many_records_it_has() {
        let lost = || ApplyError::Database(sqlx::Error::PoolTimedOut);
        assert!(matches!(Setback::of(lost(), 10), Setback::Away(_)));
        assert!(!Setback::of(lost(), 10).divides());
        let strange = ApplyError::Database(sqlx::Error::RowNotFound);
        assert!(matches!(
            Setback::of(strange, 1),
            Setback::Systemic(Some(_))
        ));
    }
}
