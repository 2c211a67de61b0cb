//! The HTTP server: connections and their limits, and what holds for every request.

mod app;
mod connections;
mod limits;
mod metrics;
mod request_id;
mod settings;

pub use app::{App, AppBody};
pub use connections::serve;
use metrics::HttpMetrics;
pub use request_id::RequestId;
pub use settings::ServerSettings;
