use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// How often histograms are folded and pools are sampled.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Buckets for durations, in seconds: 0.5 ms to 10 s.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];
/// Buckets for how many rows or events share a transaction.
const ROWS: [f64; 11] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0,
];

/// The process's metrics, in Prometheus's text format.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// What a scrape answers.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what histograms have gathered, until the token is cancelled; without it they would
    /// grow until the next scrape.
    pub async fn upkeep(self, token: CancellationToken) {
        let mut ticks = interval(UPKEEP_INTERVAL);
        while token.run_until_cancelled(ticks.tick()).await.is_some() {
            self.0.run_upkeep();
        }
    }
}

/// Makes the process's metrics recorder. To be called once, before the first metric.
///
/// # Errors
/// If there is a recorder already.
pub fn install_metrics() -> Result<Metrics, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_rows".to_owned()), &ROWS)?
        .set_buckets_for_metric(Matcher::Suffix("_slice_events".to_owned()), &ROWS)?
        .install_recorder()
        .map(Metrics)
}

/// Samples a pool's connections into `db_pool_connections{pool,state}` until cancelled.
pub async fn sample_pool(pool: PgPool, name: &'static str, token: CancellationToken) {
    metrics::describe_gauge!("db_pool_connections", "Connections of a pool by state");
    let idle = gauge!("db_pool_connections", "pool" => name, "state" => "idle");
    let used = gauge!("db_pool_connections", "pool" => name, "state" => "used");
    let mut ticks = interval(UPKEEP_INTERVAL);
    while token.run_until_cancelled(ticks.tick()).await.is_some() {
        let free = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        idle.set(f64::from(free));
        used.set(f64::from(pool.size().saturating_sub(free)));
    }
}
