//! The intake against a real PostgreSQL, each test with a database of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod failures;
mod keys;
mod queue;
mod support;
