use clap::{Args, ValueEnum};
use tracing_subscriber::{
    EnvFilter, fmt,
    fmt::format::JsonFields,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use super::json::FlatJson;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// One line a message, for people.
    Pretty,
}

/// What is logged, and how. Logs go to standard output.
#[derive(Args, Clone, Debug)]
pub struct LogSettings {
    /// How logs are written: one JSON object a line, or text for people
    #[arg(long, env, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,

    /// What is logged, as tracing-subscriber directives: `debug`, or `info,api=debug`
    #[arg(long, env, default_value = "info", value_parser = parse_filter)]
    pub log_filter: String,
}

fn parse_filter(directives: &str) -> Result<String, String> {
    EnvFilter::try_new(directives)
        .map(|_| directives.to_owned())
        .map_err(|error| format!("not a log filter such as `info,api=debug`: {error}"))
}

/// Starts logging for the whole process.
///
/// # Errors
/// If logging was started already.
pub fn init_logs(settings: &LogSettings, service: &'static str) -> Result<(), TryInitError> {
    let filter = EnvFilter::new(&settings.log_filter);
    let registry = tracing_subscriber::registry().with(filter);
    match settings.log_format {
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .fmt_fields(JsonFields::new())
                    .event_format(FlatJson { service }),
            )
            .try_init(),
        LogFormat::Pretty => registry.with(fmt::layer().with_target(false)).try_init(),
    }
}
