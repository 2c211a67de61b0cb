//! The connection pool, the migrator, and what a database error means.

mod bounded;
mod error;
mod settings;

pub use bounded::bounded;
pub use error::{ErrorClass, constraint, is_serialization_failure};
pub use settings::{DatabaseSettings, DatabaseUrl, Isolation};
use sqlx::migrate::Migrator;

/// The schema's migrations, compiled in.
pub static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");
