//! The promises of Postonce, held to the real binaries on a real PostgreSQL and a real broker.
//!
//! Each test has a database, topics and a consumer group for itself, and nearly every one ends with
//! an audit of the books.

#![expect(
    clippy::expect_used,
    reason = "a helper of a test fails by panicking, as the test does"
)]

mod access;
mod auditor;
mod batch;
mod dead_letters;
mod documents;
mod duplicates;
mod forgery;
mod frozen;
mod hang_up;
mod idempotency;
mod journey;
mod operator;
mod outages;
mod overload;
mod pagination;
mod refusals;
mod restarts;
mod scale;
mod secrets;
mod settings;
mod shutdown;
mod systemic;
mod too_large;
