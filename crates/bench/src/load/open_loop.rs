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
        // Whoever has no answer by then is given up.
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
        let mut request = UnderWay::new(&load, due);
        request.answer = load.post(&mut connection).await.ok();
        let is_broken = request.answer.is_none();
        drop(request);
        if is_broken {
            match reconnect(&load.target).await {
                Some(anew) => connection = anew,
                None => return,
            }
        }
    }
}

/// A request from when it is sent. It is counted when it is dropped, so that one that is given up at the
/// limit counts as well, with the time that it had waited: without it the slowest would be left out.
struct UnderWay<'a> {
    load: &'a Load,
    due: Instant,
    answer: Option<Answer>,
}

impl<'a> UnderWay<'a> {
    fn new(load: &'a Load, due: Instant) -> Self {
        Self {
            load,
            due,
            answer: None,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut tally = self.load.tally();
        tally.record(self.due.elapsed());
        match &self.answer {
            Some(answer) => count_answer(&mut tally, answer),
            None => tally.unknown += 1,
        }
    }
}

fn count_answer(tally: &mut Tally, answer: &Answer) {
    match transaction_id(&answer.body) {
        Some(id) if answer.status == StatusCode::ACCEPTED => tally.acknowledged.push(id),
        _ if answer.leaves_outcome_open() => tally.unknown += 1,
        _ => tally.refuse(1, || {
            format!(
                "{} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            )
        }),
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

    fn finish(&self) -> Tally {
        let mut tally = std::mem::take(&mut *self.tally());
        tally.took = self.turns.elapsed();
        self.turns.count_unsent(&mut tally);
        tally
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        // A panic while it was held has ended a sender, not the count.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;
    use uuid::Uuid;

    use super::{super::Schedule, *};

    const WAITED: Duration = Duration::from_secs(7);

    fn load() -> Arc<Load> {
        let schedule = Schedule::new(1, Duration::from_secs(1));
        Arc::new(Load {
            target: Target::new(([127, 0, 0, 1], 1).into(), "key").unwrap(),
            path: Uri::from_static("/"),
            instructions: Instructions::new(vec![Uuid::now_v7()], 1),
            turns: Turns::start(Pace::Constant(schedule), Arc::new(AtomicBool::new(true))),
            tally: Mutex::default(),
        })
    }

    fn long_ago() -> Instant {
        Instant::now().checked_sub(WAITED).unwrap()
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_counts_with_the_time_it_had_waited() {
        let load = load();
        let mut senders = JoinSet::new();
        let sender = Arc::clone(&load);
        senders.spawn(async move {
            let _request = UnderWay::new(&sender, long_ago());
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        senders.shutdown().await;
        let tally = load.finish();
        assert_eq!((tally.unknown, tally.latency.len()), (1, 1));
        assert!(tally.percentile_ms(50.0) >= 6_990.0);
    }

    #[test]
    fn each_answer_counts_as_what_it_says() {
        let id = Uuid::now_v7();
        let accepted = format!("{{\"id\":\"{id}\"}}");
        let answers = [
            (StatusCode::ACCEPTED, accepted.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "full"),
            (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown"),
        ];
        let mut tally = Tally::new();
        for (status, body) in answers {
            let body = Bytes::copy_from_slice(body.as_bytes());
            count_answer(&mut tally, &Answer { status, body });
        }
        assert_eq!(tally.acknowledged, [id]);
        assert_eq!((tally.refused, tally.unknown), (1, 1));
        assert!(tally.first_refusal.unwrap().contains("full"));
    }
}
