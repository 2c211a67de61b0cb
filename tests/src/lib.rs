//! The harness of the black-box tests: it starts the real binaries against a database, topics and
//! a consumer group that each test has for itself, and audits the books at the end.
//!
//! It links no service. What it knows of them is what a stranger could read: settings, routes, the
//! wire format, and the tables.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a harness fails by panicking: that is how a test fails"
)]

mod audit;
mod book;
pub mod chaos;
mod client;
mod database;
mod kafka;
mod proxy;
mod runner;
mod service;
mod stack;
mod traffic;
mod wait;

pub use audit::{AccountRow, Audit, DeadLetterRow, EntryRow, Snapshot, TransactionRow};
pub use book::{Book, Payment, Sent};
pub use client::{Address, Answer, Client};
pub use database::{Database, Role};
pub use kafka::{Kafka, Record};
pub use proxy::Proxy;
pub use runner::{remove_left_over, test, test_with};
pub use service::{Kind, Service, Settings, binary, run};
pub use stack::{Setup, Stack};
pub use traffic::Traffic;
pub use wait::{PATIENCE, eventually};
