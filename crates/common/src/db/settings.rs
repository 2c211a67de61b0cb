use std::{fmt, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

const CONNECTIONS_MAX: u32 = 8;
const ACQUIRE_TIMEOUT_MS: u64 = 3_000;
const STATEMENT_TIMEOUT_MS: u64 = 5_000;

/// Where the database is and how sessions behave. `DATABASE_URL` itself belongs to each service,
/// because each has a role of its own.
#[derive(Args, Clone, Debug)]
pub struct DatabaseSettings {
    /// Most connections held open in the pool
    #[arg(long, env, default_value_t = CONNECTIONS_MAX, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections_max: u32,

    /// How long to wait for a free connection of the pool, in milliseconds
    #[arg(long, env, default_value_t = ACQUIRE_TIMEOUT_MS, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub database_acquire_timeout_ms: u64,

    /// How long the server lets one statement run, in milliseconds; kept below the consumer group's
    /// session timeout, so that a frozen process holds no lock for ever
    #[arg(long, env, default_value_t = STATEMENT_TIMEOUT_MS, value_parser = clap::value_parser!(u64).range(100..=9_000))]
    pub database_statement_timeout_ms: u64,
}

/// Under SERIALIZABLE a sequential scan locks its whole table against every writer, and the planner
/// prefers one for a table that is small or was never analysed. The statements of these sessions
/// look rows up by key, so they are planned as that, once, whatever the statistics say.
const POINT_LOOKUPS: [(&str, &str); 3] = [
    ("enable_seqscan", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// A PostgreSQL URL, read once at start. It is never printed: it may hold a password.
#[derive(Clone)]
pub struct DatabaseUrl(PgConnectOptions);

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("must be a URL postgres://user:password@host:port/database".to_owned());
        }
        // The parser's own message may repeat parts of the URL, so it is not passed on.
        PgConnectOptions::from_str(url)
            .map(Self)
            .map_err(|_| "is no valid postgres://user:password@host:port/database URL".to_owned())
    }
}

impl From<PgConnectOptions> for DatabaseUrl {
    fn from(options: PgConnectOptions) -> Self {
        Self(options)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

impl Default for DatabaseSettings {
    /// The defaults of the flags.
    fn default() -> Self {
        Self {
            database_connections_max: CONNECTIONS_MAX,
            database_acquire_timeout_ms: ACQUIRE_TIMEOUT_MS,
            database_statement_timeout_ms: STATEMENT_TIMEOUT_MS,
        }
    }
}

/// The isolation level in which a pool's transactions run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// SERIALIZABLE.
    Serializable,
    /// READ COMMITTED.
    ReadCommitted,
}

impl Isolation {
    const fn as_sql(self) -> &'static str {
        match self {
            Self::Serializable => "serializable",
            Self::ReadCommitted => "read committed",
        }
    }
}

impl DatabaseUrl {
    /// How to open a session: durable commits (promise 1), bounded statements and locks, and an
    /// isolation level by default, so that one statement is one transaction of that level.
    #[must_use]
    pub fn session(
        &self,
        settings: &DatabaseSettings,
        service: &str,
        isolation: Isolation,
    ) -> PgConnectOptions {
        let timeout = format!("{}ms", settings.database_statement_timeout_ms);
        let session = self.0.clone().application_name(service).options([
            ("synchronous_commit", "on"),
            ("default_transaction_isolation", isolation.as_sql()),
            ("statement_timeout", timeout.as_str()),
            ("lock_timeout", timeout.as_str()),
            ("idle_in_transaction_session_timeout", timeout.as_str()),
            // Warnings go to the server's own log alone: it sends one behind each commit that collided.
            ("client_min_messages", "error"),
            // Our statements are short; compiling one would take longer than running it.
            ("jit", "off"),
        ]);
        match isolation {
            Isolation::Serializable => session.options(POINT_LOOKUPS),
            Isolation::ReadCommitted => session,
        }
    }

    /// The connection without any of the services' session settings: for migrations and operators'
    /// commands.
    #[must_use]
    pub fn plain(&self) -> PgConnectOptions {
        self.0.clone()
    }

    /// A pool of such sessions.
    #[must_use]
    pub fn pool(&self, settings: &DatabaseSettings, service: &str, isolation: Isolation) -> PgPool {
        settings.pool(self.session(settings, service, isolation))
    }
}

impl DatabaseSettings {
    /// A pool of sessions; nothing is connected until it is used, so a service starts while its
    /// database is away.
    #[must_use]
    pub fn pool(&self, session: PgConnectOptions) -> PgPool {
        PgPoolOptions::new()
            .max_connections(self.database_connections_max)
            .acquire_timeout(Duration::from_millis(self.database_acquire_timeout_ms))
            // A broken connection shows itself at its first statement, and every caller retries;
            // asking before each use would cost a round trip a batch.
            .test_before_acquire(false)
            .connect_lazy_with(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_refused_without_repeating_it() {
        for url in [
            "",
            "secret",
            "mysql://u:secret@h/d",
            "postgres://u:secret@h:port/d",
        ] {
            let error = url.parse::<DatabaseUrl>().unwrap_err();
            assert!(error.contains("postgres://user:password@host"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn debug_output_hides_the_password() {
        let url: DatabaseUrl = "postgres://u:secret@localhost/d".parse().unwrap();
        assert_eq!(format!("{url:?}"), "DatabaseUrl(…)");
    }
}
