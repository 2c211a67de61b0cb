use std::time::Duration;

use hyper::{StatusCode, Uri};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Connection, Instructions, Tally, Target, answer::accepted_ids, instructions::batch,
    thread::on_own_thread,
};
use crate::figures::count;

/// How many transactions a batch has: the most that the api takes.
pub const BATCH_ITEMS: usize = 1_000;

/// Batches over a few connections, each sent when the one before on its connection was answered.
#[derive(Clone, Debug)]
pub struct Batches {
    /// Where to.
    pub target: Target,
    /// What.
    pub instructions: Instructions,
    /// Over how many connections.
    pub connections: usize,
    /// When to end.
    pub until: Until,
}

/// When a load of batches ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After so many batches on each connection.
    Batches(u64),
}

impl Until {
    fn is_reached(self, sent: u64, started: Instant) -> bool {
        match self {
            Self::Elapsed(time) => started.elapsed() >= time,
            Self::Batches(batches) => sent >= batches,
        }
    }
}

impl Batches {
    /// Sends everything, on a thread of its own.
    pub async fn run(self) -> anyhow::Result<Tally> {
        on_own_thread(async || self.drive().await).await?
    }

    async fn drive(self) -> anyhow::Result<Tally> {
        let started = Instant::now();
        let mut senders = JoinSet::new();
        for _ in 0..self.connections {
            let connection = Connection::open(&self.target).await?;
            senders.spawn(self.clone().send_on(connection, started));
        }
        let mut total = Tally::new();
        while let Some(tally) = senders.join_next().await {
            let tally = tally??;
            total.acknowledged.extend(tally.acknowledged);
            total.refused += tally.refused;
            total.first_refusal = total.first_refusal.or(tally.first_refusal);
            total.latency.add(&tally.latency)?;
        }
        total.took = started.elapsed();
        Ok(total)
    }

    async fn send_on(self, mut connection: Connection, started: Instant) -> anyhow::Result<Tally> {
        let path = Uri::from_static("/v1/transactions/batch");
        let (mut tally, mut sent) = (Tally::new(), 0);
        while !self.until.is_reached(sent, started) {
            let body = batch(&self.instructions, BATCH_ITEMS);
            let asked = Instant::now();
            let answer = connection.post(&path, None, body).await?;
            tally.record(asked.elapsed());
            let before = tally.acknowledged.len();
            if answer.status == StatusCode::MULTI_STATUS {
                accepted_ids(&answer.body, &mut tally.acknowledged);
            }
            let accepted = tally.acknowledged.len() - before;
            if accepted < BATCH_ITEMS {
                let start = &answer.body[..answer.body.len().min(300)];
                let why = || format!("{} {}", answer.status, String::from_utf8_lossy(start));
                tally.refuse(count(BATCH_ITEMS - accepted), why);
            }
            sent += 1;
        }
        Ok(tally)
    }
}
