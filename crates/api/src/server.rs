//! The HTTP server: connections and their limits, and what holds for every request.

mod app;
mod connections;
mod limits;
mod metrics;
mod request_id;
mod settings;

pub use app::{App, AppBody};
pub use connections::serve;
pub use request_id::{RequestContext, RequestId};
pub use settings::ServerSettings;
