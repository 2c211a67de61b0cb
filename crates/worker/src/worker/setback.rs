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

#[cfg(test)]
mod tests {
    use super::*;

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
