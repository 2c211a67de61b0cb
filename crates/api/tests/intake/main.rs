//! The intake against a real PostgreSQL, each test with a database of its own.

mod failures;
mod keys;
mod queue;
mod support;
