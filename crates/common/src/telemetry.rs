//! Logs and metrics, set up alike in every service.

mod json;
mod logs;
mod metrics;

pub use logs::{LogFormat, LogSettings, init_logs};
pub use metrics::{Metrics, install_metrics, sample_pool};
