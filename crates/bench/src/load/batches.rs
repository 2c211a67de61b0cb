use std::time::Duration;

use hyper::{StatusCode, Uri};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Answer, Connection, Instructions, Tally, Target,
    answer::{accepted_ids, open_items},
    instructions::batch,
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
            total.unknown += tally.unknown;
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
            count_answer(&mut tally, &answer);
            sent += 1;
        }
        Ok(tally)
    }
}

/// Books each transaction of a batch by its own result, or all of them by the answer to the whole.
fn count_answer(tally: &mut Tally, answer: &Answer) {
    let before = tally.acknowledged.len();
    let mut open = 0;
    if answer.status == StatusCode::MULTI_STATUS {
        accepted_ids(&answer.body, &mut tally.acknowledged);
        open = open_items(&answer.body);
    } else if answer.leaves_outcome_open() {
        open = BATCH_ITEMS;
    }
    let accepted = tally.acknowledged.len() - before;
    tally.unknown += count(open);
    let refused = BATCH_ITEMS.saturating_sub(accepted + open);
    if refused > 0 {
        let start = &answer.body[..answer.body.len().min(300)];
        let why = || format!("{} {}", answer.status, String::from_utf8_lossy(start));
        tally.refuse(count(refused), why);
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;
    use uuid::Uuid;

    use super::*;

    fn counted(status: StatusCode, body: &str) -> (usize, u64, u64) {
        let mut tally = Tally::new();
        let body = Bytes::copy_from_slice(body.as_bytes());
        count_answer(&mut tally, &Answer { status, body });
        (tally.acknowledged.len(), tally.unknown, tally.refused)
    }

    #[test]
    fn each_item_counts_by_its_own_result() {
        let accepted = format!(
            r#"{{"index":0,"status":202,"transaction":{{"id":"{}"}}}}"#,
            Uuid::now_v7()
        );
        let open = r#"{"index":1,"status":504,"problem":{"status":504}}"#;
        let refused = r#"{"index":2,"status":503,"problem":{"status":503}}"#;
        let items = vec![refused; BATCH_ITEMS - 2].join(",");
        let body = format!(r#"{{"results":[{accepted},{open},{items}]}}"#);
        let all = u64::try_from(BATCH_ITEMS).unwrap();
        assert_eq!(counted(StatusCode::MULTI_STATUS, &body), (1, 1, all - 2));
        assert_eq!(counted(StatusCode::GATEWAY_TIMEOUT, "late"), (0, all, 0));
        assert_eq!(
            counted(StatusCode::SERVICE_UNAVAILABLE, "full"),
            (0, 0, all)
        );
    }
}
