//! The API as a client sees it, over a real PostgreSQL and under the role that it has in production;
//! each test with a database of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod accounts;
mod auth;
mod bad_input;
mod batch;
mod connections;
mod dead_letters;
mod dead_letters_beside_a_worker;
mod dead_letters_by_filter;
mod dead_letters_left_out;
mod dead_letters_listed;
mod documents;
mod errors;
mod harness;
mod lanes;
mod letters;
mod lists;
mod outages;
mod server;
mod statements;
mod transactions;
