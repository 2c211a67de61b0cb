//! Crash points and mutations for the fault suite (`make chaos`).
//!
//! Without the feature `faults`, which no shipped binary has, both functions do nothing and compile to
//! nothing. With it, two variables steer them:
//! - `FAULT_POINT=worker.after_commit:17` kills the process at its 17th pass of that point, behind a line
//!   on standard error that tells this end from any other abort;
//! - `FAULT_MUTATION=offsets_before_commit` breaks one of the rules that the promises rest on, so that
//!   the suite can show that it notices.

/// A rule that a mutant breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The worker posts whatever comes, closed or final or not.
    IgnoreClosed,
    /// The worker commits offsets before the database's commit.
    OffsetsBeforeCommit,
    /// The publisher marks rows before the broker acknowledged them.
    MarkBeforeAck,
    /// The publisher goes on with lanes that it lost while it was frozen, and leaves rows of them out.
    KeepLostLane,
    /// The worker does not lock accounts.
    NoAccountLock,
    /// The api answers 202 before the commit.
    AnswerBeforeCommit,
}

#[cfg(not(feature = "faults"))]
pub use absent::{mutated, point};
#[cfg(feature = "faults")]
pub use active::{mutated, point};

#[cfg(not(feature = "faults"))]
mod absent {
    use super::Mutation;

    /// A step at which the fault suite may kill the process.
    #[inline]
    pub const fn point(_name: &str) {}

    /// Whether this process breaks that rule.
    #[inline]
    #[must_use]
    pub const fn mutated(_mutation: Mutation) -> bool {
        false
    }
}

#[cfg(feature = "faults")]
mod active {
    use std::{
        env,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use super::Mutation;

    /// The point and how many more passes it lets through, from `FAULT_POINT`.
    static POINT: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let setting = env::var("FAULT_POINT").ok()?;
        let (name, pass) = setting.rsplit_once(':')?;
        Some((name.to_owned(), AtomicU64::new(pass.parse().ok()?)))
    });

    static MUTATION: LazyLock<Option<String>> = LazyLock::new(|| env::var("FAULT_MUTATION").ok());

    impl Mutation {
        const fn name(self) -> &'static str {
            match self {
                Self::IgnoreClosed => "ignore_closed",
                Self::OffsetsBeforeCommit => "offsets_before_commit",
                Self::MarkBeforeAck => "mark_before_ack",
                Self::KeepLostLane => "keep_lost_lane",
                Self::NoAccountLock => "no_account_lock",
                Self::AnswerBeforeCommit => "answer_before_commit",
            }
        }
    }

    /// A step at which the fault suite may kill the process: no destructor runs. The suite waits for the
    /// line, because anything else in a process may abort, too.
    pub fn point(name: &str) {
        if let Some((chosen, left)) = &*POINT
            && chosen == name
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            eprintln!("fault point {name}: the process ends here");
            std::process::abort();
        }
    }

    /// Whether this process breaks that rule.
    #[must_use]
    pub fn mutated(mutation: Mutation) -> bool {
        MUTATION.as_deref() == Some(mutation.name())
    }
}
