use std::{sync::Arc, time::Duration};

use common::types::{Lane, LaneSet};
use rand::seq::SliceRandom;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Ownership, ownership::Plan, sql};
use crate::{backoff::Backoff, health::HealthSide, hinted::Hinted};

/// A session that is silent for longer than the lease is closed by the server, which frees its
/// locks: of a frozen process, or of one the network cut off.
pub(crate) const SESSION_OPTIONS: [(&str, &str); 1] = [("idle_session_timeout", "5s")];

/// How often the session shows that it lives, and instances look at each other.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take; past it the session counts as lost, still within its lease.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Pauses between attempts to get a new session.
const RECONNECT_PAUSE_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Holds this instance's share of the lanes until the token is cancelled, over as many sessions as
/// that takes.
pub(crate) async fn keep(
    session: PgConnectOptions,
    ownership: Arc<Ownership>,
    database: HealthSide,
    hinted: Arc<Hinted>,
    token: CancellationToken,
) {
    let mut backoff = Backoff::new(RECONNECT_PAUSE_FIRST, RECONNECT_PAUSE_MAX);
    loop {
        let mut keeper = Keeper {
            ownership: &ownership,
            database: &database,
            hinted: &hinted,
            backoff: &mut backoff,
        };
        let ended = keeper.keep_one_session(&session, &token).await;
        ownership.lose();
        let Err(error) = ended else { return };
        database.set_unready(format!("the session that holds the lanes failed: {error}"));
        if token
            .run_until_cancelled(sleep(backoff.pause()))
            .await
            .is_none()
        {
            return;
        }
    }
}

struct Keeper<'a> {
    ownership: &'a Ownership,
    database: &'a HealthSide,
    hinted: &'a Hinted,
    backoff: &'a mut Backoff,
}

impl Keeper<'_> {
    async fn keep_one_session(
        &mut self,
        session: &PgConnectOptions,
        token: &CancellationToken,
    ) -> Result<(), sqlx::Error> {
        self.refuse_if_stalled()?;
        let mut connection = in_time(PgConnection::connect_with(session)).await?;
        in_time(sql::announce(&mut connection)).await?;
        let mut ticks = interval(PING_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while token.run_until_cancelled(ticks.tick()).await.is_some() {
            self.refuse_if_stalled()?;
            // The lease counts from before the question: the server's clock starts later.
            let asked_at = Instant::now();
            let acquired = in_time(self.balance(&mut connection)).await?;
            self.ownership.confirm(asked_at);
            self.database.set_ready();
            self.backoff.reset();
            if !acquired.is_empty() {
                // Nobody looked at them on our behalf yet.
                self.hinted.hint(acquired);
            }
        }
        // Locks go with their session; a close that fails ends it all the same.
        in_time(connection.close()).await
    }

    /// Who cannot send the rows of lanes must not hold them.
    fn refuse_if_stalled(&self) -> Result<(), sqlx::Error> {
        if self.ownership.is_stalled(Instant::now()) {
            let told = "the publishing cycle has ended no step for too long";
            return Err(sqlx::Error::Protocol(told.to_owned()));
        }
        Ok(())
    }

    /// Takes or gives up lanes as the number of instances asks; also the sign of life.
    async fn balance(&self, connection: &mut PgConnection) -> Result<LaneSet, sqlx::Error> {
        let census = sql::census(connection).await?;
        let instances = usize::try_from(census.instances).unwrap_or(1);
        let Plan { release, wanted } = self.ownership.plan(instances);
        if !release.is_empty() {
            sql::release(connection, &numbers(release)).await?;
        }
        let taken: LaneSet = known(census.taken).collect();
        let free = LaneSet::ALL.without(taken).without(self.ownership.owned());
        let candidates = any(free, wanted);
        if candidates.is_empty() {
            self.tell(release, LaneSet::EMPTY, instances);
            return Ok(LaneSet::EMPTY);
        }
        let acquired = sql::take(connection, &numbers(candidates)).await?;
        let acquired: LaneSet = known(acquired).collect();
        self.ownership.acquired(acquired);
        self.tell(release, acquired, instances);
        Ok(acquired)
    }

    fn tell(&self, released: LaneSet, acquired: LaneSet, instances: usize) {
        if !released.is_empty() || !acquired.is_empty() {
            info!(
                acquired = acquired.len(),
                released = released.len(),
                owned = self.ownership.owned().len(),
                instances,
                "lanes changed hands"
            );
        }
    }
}

/// So many of these lanes, at random: instances that start together do not all try the same ones.
fn any(lanes: LaneSet, count: usize) -> LaneSet {
    let mut lanes: Vec<Lane> = lanes.iter().collect();
    lanes.shuffle(&mut rand::rng());
    lanes.into_iter().take(count).collect()
}

fn numbers(lanes: LaneSet) -> Vec<i16> {
    lanes.iter().map(Lane::number).collect()
}

fn known(numbers: Vec<i16>) -> impl Iterator<Item = Lane> {
    numbers.into_iter().filter_map(Lane::from_number)
}

async fn in_time<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match timeout(PING_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}
