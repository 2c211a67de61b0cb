use std::io;

use crate::{
    failure::{Class, classify, describe},
    slice::ApplyError,
};

/// After so many collisions in a row, some seconds, a part is halved: the longer a transaction takes and the
/// more it touches, the surer it collides again, and it would be tried whole for as long as the load lasts.
/// Not sooner: few collide twice, and small parts are slow (docs/decisions.md).
const COLLISIONS_MAX: u32 = 32;

/// Why a part of a slice is not worked off yet.
#[derive(Debug)]
pub(super) enum Setback {
    /// Two transactions collided: soon again.
    Collision(ApplyError),
    /// That happened too often to a part of several records: again in halves.
    Crowded(ApplyError),
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

    /// What it means behind the attempts before it at the same part. One without an answer in time may
    /// be a server that went away; the second time the part may be too much: it would be tried whole for
    /// ever, where half of it would be done.
    pub(super) fn behind(self, before: Before, records: usize) -> Self {
        match self {
            Self::Away(error) if before.was_silent && records > 1 && is_silence(&error) => {
                Self::TooLong(error)
            }
            Self::Collision(error) if before.collisions + 1 >= COLLISIONS_MAX && records > 1 => {
                Self::Crowded(error)
            }
            setback => setback,
        }
    }

    /// Whether the part is tried again as two.
    pub(super) const fn divides(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::OneOfMany | Self::Crowded(_))
    }

    /// Whether its records may be at fault, and not others' transactions.
    pub(super) const fn is_of_records(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::OneOfMany)
    }

    /// The name in metrics.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Collision(_) | Self::Crowded(_) => "collision",
            Self::Away(_) => "away",
            Self::TooLong(_) => "too_long",
            Self::OneOfMany | Self::Alone(_) => "of_one_event",
            Self::Systemic(_) => "systemic",
        }
    }
}

/// What the attempts before at the same part have shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// The last had no answer in time.
    was_silent: bool,
    /// The last so many collided.
    collisions: u32,
}

impl Before {
    /// What is known behind one more setback. Halves have attempts of their own, but that a half which
    /// collides at once, too, is halved at once.
    pub(super) fn and(self, setback: &Setback) -> Self {
        match setback {
            Setback::Away(error) => Self {
                was_silent: is_silence(error),
                collisions: 0,
            },
            Setback::Collision(_) | Setback::Crowded(_) => Self {
                was_silent: false,
                collisions: self.collisions.saturating_add(1),
            },
            _ => Self::default(),
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
        let first = Setback::of(timed_out(), 10).behind(Before::default(), 10);
        assert!(!first.divides());
        let before = Before::default().and(&first);
        let second = Setback::of(timed_out(), 10).behind(before, 10);
        assert!(second.divides(), "{second:?}");
        // Each half has two attempts of its own.
        let half = Setback::of(timed_out(), 5).behind(before.and(&second), 5);
        assert!(!half.divides());
        assert!(!Setback::of(timed_out(), 1).behind(before, 1).divides());
        // Who knows that the database is away divides nothing.
        let lost = Setback::of(ApplyError::Database(sqlx::Error::PoolTimedOut), 10);
        assert!(!lost.behind(before, 10).divides());
    }

    #[test]
    fn a_part_that_collides_again_and_again_is_halved_and_one_record_is_not() {
        let collision = || Setback::Collision(timed_out());
        let mut before = Before::default();
        for _ in 1..COLLISIONS_MAX {
            let setback = collision().behind(before, 10);
            assert!(!setback.divides());
            before = before.and(&setback);
        }
        let last = collision().behind(before, 10);
        assert!(last.divides() && !last.is_of_records());
        assert!(!collision().behind(before, 1).divides());
        assert!(collision().behind(before.and(&last), 5).divides());
        let away = Setback::Away(timed_out());
        assert!(!collision().behind(before.and(&away), 5).divides());
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
