//! What at least two services need and must agree on, nothing else: they would break if their
//! copies differed.

pub mod admin;
pub mod db;
pub mod faults;
pub mod outbox;
pub mod runtime;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod types;
