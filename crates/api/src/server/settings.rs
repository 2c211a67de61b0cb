use std::time::Duration;

use clap::Args;

/// What one client may ask of the server: a limit on everything.
#[derive(Args, Clone, Copy, Debug)]
pub struct ServerSettings {
    /// Most connections open at once; more wait to be accepted
    #[arg(long, env, default_value_t = 2_048, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub http_connections_max: u32,

    /// How long a request's headers may take to arrive, how long an HTTP/1 connection may stay idle,
    /// and how long a client may take nothing of what is sent to it, in milliseconds
    #[arg(long, env, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub http_header_read_timeout_ms: u64,

    /// Longest path and query together, in bytes; beyond it 414
    #[arg(long, env, default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(256..=32_768))]
    pub http_uri_bytes_max: u32,

    /// Most headers of a request; beyond it 431
    #[arg(long, env, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=96))]
    pub http_headers_max: u32,

    /// Largest headers of a request, names and values together, in bytes; beyond it 431
    #[arg(long, env, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1_024..=65_536))]
    pub http_header_bytes_max: u32,

    /// Largest body of a request, in bytes; beyond it 413
    #[arg(long, env, default_value_t = 1_048_576, value_parser = clap::value_parser!(u32).range(1_024..=67_108_864))]
    pub http_body_bytes_max: u32,

    /// Largest sum of the bodies of all requests under way, in bytes; beyond it 503
    #[arg(long, env, default_value_t = 67_108_864, value_parser = clap::value_parser!(u32).range(67_108_864..=2_147_483_647))]
    pub http_bodies_bytes_max: u32,

    /// How long a request's body may take to arrive, in milliseconds; beyond it 408
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub http_body_read_timeout_ms: u64,

    /// How long a request may take beside its body's arrival, in milliseconds; beyond it 504.
    /// Posting transactions has its own, `INTAKE_DEADLINE_MS`
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub http_request_timeout_ms: u64,

    /// Smallest response that is compressed for a client that accepts gzip, in bytes
    #[arg(long, env, default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(64..))]
    pub http_compression_bytes_min: u64,
}

impl ServerSettings {
    pub(crate) fn header_read_timeout(&self) -> Duration {
        Duration::from_millis(self.http_header_read_timeout_ms)
    }

    pub(crate) fn body_read_timeout(&self) -> Duration {
        Duration::from_millis(self.http_body_read_timeout_ms)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.http_request_timeout_ms)
    }
}
