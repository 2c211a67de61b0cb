//! The connection pool, the migrator, and what a database error means.

mod bounded;
mod error;
mod settings;

pub use bounded::{WorkError, bounded};
pub use error::{ErrorClass, constraint, is_serialization_failure, takes_no_writes};
pub use settings::{DatabaseSettings, DatabaseUrl, Isolation};
use sqlx::migrate::Migrator;

/// The schema's migrations, compiled in.
pub static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");
