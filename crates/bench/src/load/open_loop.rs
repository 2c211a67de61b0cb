use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use hyper::{StatusCode, Uri};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Answer, Connection, GRACE, Instructions, Pace, Tally, Target, answer::transaction_id,
    thread::on_own_thread, turns::Turns,
};
use crate::figures::count;

/// How long answers may still arrive when nothing is sent any more; longer than the api's own deadline.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// The pause before a broken connection is made anew, and how often that is tried.
const RECONNECT: (Duration, u32) = (Duration::from_millis(100), 50);

/// Single transactions, sent when they are due and not when the one before was answered.
///
/// A closed loop (send, wait, send) stops asking while the system stalls, so a stall of a second
/// becomes one slow answer for each connection instead of a second's worth of them ("coordinated
/// omission", Gil Tene). Here each request has its time, and its latency counts from that time,
/// also where it first had to wait for a connection. What still waits for one when the load is over is
/// sent within [`GRACE`], and given up after it.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    /// Where to.
    pub target: Target,
    /// What.
    pub instructions: Instructions,
    /// Over how many connections, which is how many requests are under way at most.
    pub connections: usize,
    /// When.
    pub pace: Pace,
    /// Ends the load early once it is true.
    pub stop: Arc<AtomicBool>,
}

struct Load {
    target: Target,
    path: Uri,
    instructions: Instructions,
    turns: Turns,
    tally: Mutex<Tally>,
}

impl OpenLoop {
    /// Sends everything and waits for the answers, on a thread of its own.
    pub async fn run(self) -> anyhow::Result<Tally> {
        on_own_thread(async || self.drive().await).await?
    }

    async fn drive(self) -> anyhow::Result<Tally> {
        let mut connections = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            connections.push(Connection::open(&self.target).await?);
        }
        let limit = self.pace.lasts() + GRACE + ANSWER_PATIENCE;
        let load = Arc::new(Load {
            target: self.target,
            path: Uri::from_static("/v1/transactions"),
            instructions: self.instructions,
            turns: Turns::start(self.pace, self.stop),
            tally: Mutex::default(),
        });
        let mut senders = JoinSet::new();
        for connection in connections {
            senders.spawn(send_on(connection, Arc::clone(&load)));
        }
        // Whoever has no answer by then is counted as unknown.
        let _ = timeout(limit, async {
            while senders.join_next().await.is_some() {}
        })
        .await;
        senders.shutdown().await;
        Ok(load.finish())
    }
}

async fn send_on(mut connection: Connection, load: Arc<Load>) {
    while let Some(due) = load.turns.next().await {
        match load.post(&mut connection).await {
            Ok(answer) => load.answered(due, &answer),
            Err(_broken) => {
                load.tally().record(due.elapsed());
                match reconnect(&load.target).await {
                    Some(anew) => connection = anew,
                    None => return,
                }
            }
        }
    }
}

async fn reconnect(target: &Target) -> Option<Connection> {
    let (pause, attempts) = RECONNECT;
    for _ in 0..attempts {
        sleep(pause).await;
        if let Ok(connection) = Connection::open(target).await {
            return Some(connection);
        }
    }
    None
}

impl Load {
    async fn post(&self, connection: &mut Connection) -> anyhow::Result<Answer> {
        let instruction = self.instructions.draw();
        let mut body = Vec::with_capacity(128);
        instruction.write_body(&mut body);
        let key = instruction.key();
        connection.post(&self.path, Some(&key), body).await
    }

    fn answered(&self, due: Instant, answer: &Answer) {
        let mut tally = self.tally();
        tally.record(due.elapsed());
        match transaction_id(&answer.body) {
            Some(id) if answer.status == StatusCode::ACCEPTED => tally.acknowledged.push(id),
            _ => tally.refuse(1, || {
                format!(
                    "{} {}",
                    answer.status,
                    String::from_utf8_lossy(&answer.body)
                )
            }),
        }
    }

    fn finish(&self) -> Tally {
        let mut tally = std::mem::take(&mut *self.tally());
        tally.took = self.turns.elapsed();
        let answered = count(tally.acknowledged.len()) + tally.refused;
        tally.unknown = self.turns.taken().saturating_sub(answered);
        self.turns.count_unsent(&mut tally);
        tally
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        // A panic while it was held has ended a sender, not the count.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
