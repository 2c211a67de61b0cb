//! Postonce's REST service: accepts payment instructions and shows what became of them.

pub mod accounts;
pub mod auth;
mod database;
mod dead_letters;
mod docs;
mod extract;
pub mod intake;
pub mod openapi;
mod pagination;
pub mod problem;
mod routes;
mod rules;
mod run;
pub mod server;
pub mod settings;
pub mod transactions;

use common::outbox::WakeUp;
pub use database::Database;
pub use extract::BodyRoom;
pub use routes::app;
pub use run::{Service, run};

/// What the handlers share.
#[derive(Debug)]
pub struct AppState {
    /// Who may call.
    pub keys: auth::KeyRing,
    /// The way in for new transactions.
    pub intake: intake::Intake,
    /// The way to everything else.
    pub database: Database,
    /// Room for the bodies of all requests under way.
    pub bodies: BodyRoom,
    /// The limits on a request.
    pub server: server::ServerSettings,
    /// Tells the publisher which lanes have something to send.
    pub wake_up: WakeUp,
    /// Where new transactions' events go; with the results' topic, all that a replay may send to.
    pub transactions_topic: String,
    /// Where the event of a discarded transaction goes.
    pub results_topic: String,
    /// How many rows one page may look at.
    pub list_examined_rows_max: u32,
}
