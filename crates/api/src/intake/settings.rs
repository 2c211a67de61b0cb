use clap::Args;

/// How requests share commits.
#[derive(Args, Clone, Debug)]
pub struct IntakeSettings {
    /// Lanes that write at the same time, each over a database connection of its own; fewer lanes
    /// make larger batches, which cost less a transaction. One keeps one core of the database busy
    #[arg(long, env, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub intake_lanes: u32,

    /// Most transactions written in one database transaction
    #[arg(long, env, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub intake_batch_rows_max: u32,

    /// Most transactions that wait to be written; beyond it a request is answered 503
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    pub intake_queue_rows_max: u32,

    /// How long a request waits to be written before it is answered 503 (nothing was written) or 504
    /// (outcome unknown), in milliseconds; for a connection to the database it waits two thirds of that
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=120_000))]
    pub intake_deadline_ms: u64,
}
