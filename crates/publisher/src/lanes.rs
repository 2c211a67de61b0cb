//! Which lanes this instance sends.
//!
//! A lane belongs to the instance that holds its session advisory lock, and instances take a fair
//! share each. Ownership saves double work; order does not rest on it. An owner that was frozen,
//! lost its lanes and wakes goes on sending what it had claimed, while the new owner sends too: then
//! records repeat, but each sender starts a lane at its first unmarked row and leaves no gap, so the
//! first occurrences are in order all the same, and consumers skip repeats by their event id.

mod ownership;
mod session;
mod sql;

pub(crate) use ownership::Ownership;
pub(crate) use session::{SESSION_OPTIONS, keep};
