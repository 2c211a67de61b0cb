use std::{collections::HashMap, sync::Arc, time::Duration};

use clap::Args;
use common::{
    admin::Component,
    db::{WorkError, bounded},
};
use sqlx::PgPool;
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{KeyHash, Scopes, sql};
use crate::problem::{Code, Problem};

/// How old what we know of the keys may be. Past it nobody is let in: a key revoked in the meantime
/// would be.
const KNOWN_FOR_MAX: Duration = Duration::from_secs(10);
/// The shortest time between two loads, so that a flood of unknown keys is no flood of queries.
const LOAD_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// How long one load may take before it counts as failed.
const LOAD_TIMEOUT: Duration = Duration::from_secs(3);

/// How the keys are kept.
#[derive(Args, Clone, Copy, Debug)]
pub struct KeyRingSettings {
    /// How often the live API keys are read again, in milliseconds; a revocation is in force after
    /// that, and the database counts as away when it fails
    #[arg(long, env, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=5_000))]
    pub api_keys_refresh_ms: u64,
}

/// A key that may be used now.
#[derive(Clone, Debug)]
pub struct LiveKey {
    /// Who holds it: the name that stands in logs.
    pub name: Arc<str>,
    /// What it may do.
    pub scopes: Scopes,
}

/// All live keys by their hash. Clones share them.
///
/// The look-up compares hashes, not keys: its timing tells at most something of the hash of what
/// the caller sent, from which no key can be found.
#[derive(Clone, Debug)]
pub struct KeyRing {
    known: watch::Receiver<Known>,
    wanted: Arc<Notify>,
}

#[derive(Clone, Debug)]
struct Known {
    keys: Arc<HashMap<KeyHash, LiveKey>>,
    /// When the load began that brought the keys; what was committed before is in them.
    as_of: Option<Instant>,
    /// When the last load began, whether it succeeded or not.
    tried_at: Option<Instant>,
}

impl Known {
    fn fresh(&self) -> Option<Instant> {
        self.as_of.filter(|as_of| as_of.elapsed() < KNOWN_FOR_MAX)
    }
}

impl KeyRing {
    /// Finds a key. One that is not known may have been made a moment ago: then the keys are loaded
    /// once more, for all who wait together.
    ///
    /// # Errors
    /// `unavailable` if the keys could not be read lately: whether this one is live is not known.
    pub async fn find(&self, hash: &KeyHash) -> Result<Option<LiveKey>, Problem> {
        let arrived = Instant::now();
        let (found, as_of) = {
            let known = self.known.borrow();
            (known.keys.get(hash).cloned(), known.fresh())
        };
        match (found, as_of) {
            (Some(key), Some(_)) => Ok(Some(key)),
            _ => self.find_after_load(hash, arrived).await,
        }
    }

    async fn find_after_load(
        &self,
        hash: &KeyHash,
        arrived: Instant,
    ) -> Result<Option<LiveKey>, Problem> {
        self.wanted.notify_one();
        let mut known = self.known.clone();
        let loaded = known.wait_for(|known| known.tried_at.is_some_and(|tried| tried >= arrived));
        let known = timeout(LOAD_TIMEOUT, loaded).await;
        let unavailable = || Problem::new(Code::Unavailable);
        let known = known
            .map_err(|_| unavailable())?
            .map_err(|_| unavailable())?;
        let found = known.keys.get(hash).cloned();
        match (found, known.as_of) {
            (Some(key), Some(_)) if known.fresh().is_some() => Ok(Some(key)),
            (None, Some(as_of)) if as_of >= arrived => Ok(None),
            _ => Err(unavailable()),
        }
    }
}

/// Makes the ring and the task that keeps it fresh, which also tells whether the database answers.
pub fn keep_fresh(
    pool: PgPool,
    settings: KeyRingSettings,
    database: Component,
    stop: CancellationToken,
) -> (KeyRing, impl Future<Output = ()> + Send) {
    let (sender, known) = watch::channel(Known {
        keys: Arc::default(),
        as_of: None,
        tried_at: None,
    });
    let wanted = Arc::new(Notify::new());
    let loader = Loader {
        pool,
        every: Duration::from_millis(settings.api_keys_refresh_ms),
        known: sender,
        wanted: Arc::clone(&wanted),
        database,
    };
    let task = async move {
        stop.run_until_cancelled(loader.run()).await;
    };
    (KeyRing { known, wanted }, task)
}

struct Loader {
    pool: PgPool,
    every: Duration,
    known: watch::Sender<Known>,
    wanted: Arc<Notify>,
    database: Component,
}

/// Why nothing can be written to a database whose keys were read.
#[derive(Debug, Error)]
enum NotWritable {
    #[error("the database can be read and not written: it is a standby, or read-only for now")]
    ReadOnly,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl WorkError for NotWritable {
    fn spoils_session(&self) -> bool {
        match self {
            Self::ReadOnly => true,
            Self::Database(error) => error.spoils_session(),
        }
    }
}

impl Loader {
    async fn run(self) {
        loop {
            let began = Instant::now();
            self.load(began).await;
            tokio::select! {
                () = sleep(self.every) => {}
                () = self.wanted.notified() => sleep_until(began + LOAD_INTERVAL_MIN).await,
            }
        }
    }

    async fn load(&self, began: Instant) {
        let read = bounded(&self.pool, LOAD_TIMEOUT, async |connection| {
            sql::live_keys(connection).await
        });
        match timeout(LOAD_TIMEOUT, read).await {
            Ok(Ok(rows)) => {
                let keys = rows.into_iter().filter_map(live_key).collect();
                self.known.send_replace(Known {
                    keys: Arc::new(keys),
                    as_of: Some(began),
                    tried_at: Some(began),
                });
                self.tell_whether_writable().await;
            }
            Ok(Err(error)) => {
                warn!(%error, "the API keys cannot be read");
                self.failed(began, reason(&error));
            }
            Err(_) => self.failed(began, no_answer()),
        }
    }

    /// Keys can be read where no payment can be written. A read-only session is closed: it may stay so for
    /// longer than its database.
    async fn tell_whether_writable(&self) {
        let asked = bounded(&self.pool, LOAD_TIMEOUT, async |connection| {
            if sql::is_read_only(connection).await? {
                return Err(NotWritable::ReadOnly);
            }
            Ok(())
        });
        match timeout(LOAD_TIMEOUT, asked).await {
            Ok(Ok(())) => self.database.set_ready(),
            Ok(Err(NotWritable::Database(error))) => self.database.set_unready(reason(&error)),
            Ok(Err(error)) => self.database.set_unready(error.to_string()),
            Err(_) => self.database.set_unready(no_answer()),
        }
    }

    fn failed(&self, began: Instant, reason: String) {
        self.database.set_unready(reason);
        self.known.send_modify(|known| known.tried_at = Some(began));
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", LOAD_TIMEOUT.as_secs())
}

/// What `/ready`, which is open to everybody, says of an error: not who asks whom.
fn reason(error: &sqlx::Error) -> String {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    match code {
        Some(code) => format!("the database refuses (SQLSTATE {code}); the log tells more"),
        None => "the database cannot be reached; the log tells more".to_owned(),
    }
}

/// The database holds hashes of 32 bytes and known scopes by its constraints; a newer version's
/// scope that we do not know is left out, and the key keeps its others.
fn live_key(row: sql::KeyRow) -> Option<(KeyHash, LiveKey)> {
    let Ok(hash) = <[u8; 32]>::try_from(row.key_sha256) else {
        warn!(
            api_key = row.name,
            "a key's hash is not 32 bytes long: it is ignored"
        );
        return None;
    };
    let scopes = row
        .scopes
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    Some((
        KeyHash(hash),
        LiveKey {
            name: row.name.into(),
            scopes,
        },
    ))
}
