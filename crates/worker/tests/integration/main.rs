//! The worker against a real PostgreSQL and a real broker: `DATABASE_URL` (a superuser's; each test
//! gets a database of its own) and `KAFKA_BROKERS` (each test makes topics and groups of its own).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml allows them in tests, and this is nothing but tests and their helpers"
)]

mod apply;
mod away;
mod concurrent;
mod consume;
mod dead_letters;
mod drain;
mod group;
mod housekeeping;
mod never_possible;
mod parking;
mod process;
mod retry;
mod sessions;
mod silent;
mod support;
mod systemic;
