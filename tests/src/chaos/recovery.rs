//! How long it takes until payments are posted again.

use std::{fmt::Write, time::Duration};

use futures_util::future::join_all;
use sqlx::Connection;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{
    fault::{Server, Slot},
    fleet::Fleet,
    load::Payer,
    servers,
};
use crate::{
    book::Payment,
    client::Client,
    service::Kind,
    stack::{Setup, Stack},
};

/// How often each is killed.
const SAMPLES: usize = 5;
/// Accounts in every partition and in most lanes: the last of them counts.
const ACCOUNTS: usize = 64;
const PARTITIONS: i32 = 6;
/// How long everything is left alone before the next kill.
const REST: Duration = Duration::from_secs(3);
/// How long a server may take until it answers, and payments until they are posted, before the measurement
/// has failed.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long one question to PostgreSQL may take: one that it did not answer tells nothing of the next.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// The pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Kills each of them some times, and tells the median and the longest time until a new payment of each
/// account was posted.
///
/// # Panics
/// If a server does not start again, or payments are not posted behind it.
pub async fn measure() -> String {
    let setup = Setup {
        partitions: Some(PARTITIONS),
        ..Setup::default()
    };
    let fleet = Fleet::new(Stack::create(setup).await, PARTITIONS, Vec::new()).await;
    fleet.muster().await;
    let apis = fleet.apis().await;
    let accounts: Vec<_> = join_all((0..ACCOUNTS).map(|_| apis[0].open_account())).await;
    let scene = Scene {
        fleet: &fleet,
        apis: &apis,
        accounts: &accounts,
    };
    let mut text = String::from("| killed | from | median s | longest s |\n|---|---|---|---|\n");
    for kind in [Kind::Worker, Kind::Publisher] {
        let mut times = Vec::new();
        for number in 0..SAMPLES {
            times.push(
                scene
                    .without(Slot {
                        kind,
                        number: number % 2,
                    })
                    .await,
            );
        }
        let from = "the kill, beside a second instance";
        let _ = writeln!(text, "{}", row(kind.name(), from, times));
    }
    for server in [Server::Postgres, Server::Kafka] {
        let mut times = Vec::new();
        for _ in 0..SAMPLES {
            times.push(scene.behind(server).await);
        }
        let from = "the server's first answer";
        let _ = writeln!(text, "{}", row(&server.to_string(), from, times));
    }
    fleet.stack.stop().await;
    fleet.stack.discard().await;
    text
}

fn row(name: &str, from: &str, mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let median = times[times.len() / 2].as_secs_f64();
    let longest = times[times.len() - 1].as_secs_f64();
    format!("| {name} | {from} | {median:.2} | {longest:.2} |")
}

/// What stands on the stage.
struct Scene<'a> {
    fleet: &'a Fleet,
    apis: &'a [Client],
    accounts: &'a [Uuid],
}

impl Scene<'_> {
    /// From the kill of an instance on.
    async fn without(&self, slot: Slot) -> Duration {
        self.rest().await;
        let mut state = self
            .fleet
            .post(slot)
            .turn()
            .await
            .expect("nobody else is here");
        let service = state.working().await.expect("all run").clone();
        service.kill().await;
        let killed = Instant::now();
        state.clear();
        self.all_posted().await;
        let took = killed.elapsed();
        drop(state);
        took
    }

    /// From the first answer of a server on, after it was killed and started again.
    async fn behind(&self, server: Server) -> Duration {
        self.rest().await;
        servers::kill(server).await.expect("it is not killed");
        let (started, back) = tokio::join!(servers::start(server), self.answers(server));
        started.expect("it does not start");
        self.all_posted().await;
        back.elapsed()
    }

    /// Whoever was killed comes back, and a payment goes the whole way.
    async fn rest(&self) {
        self.fleet.muster().await;
        self.all_posted().await;
        sleep(REST).await;
    }

    /// When the server answered for the first time.
    async fn answers(&self, server: Server) -> Instant {
        let deadline = Instant::now() + PATIENCE;
        while !self.answers_now(server).await {
            assert!(Instant::now() < deadline, "{server} does not answer");
            sleep(ASK_EVERY).await;
        }
        Instant::now()
    }

    /// Whether a server answers a stranger now. A pool would pause for longer and longer between its
    /// tries, and the clock would start late.
    async fn answers_now(&self, server: Server) -> bool {
        let stack = &self.fleet.stack;
        match server {
            Server::Postgres => {
                let asked = async { stack.database.session().await?.ping().await };
                matches!(timeout(ANSWER_MAX, asked).await, Ok(Ok(())))
            }
            Server::Kafka => {
                let kafka = stack.kafka.clone();
                spawn_blocking(move || kafka.answers())
                    .await
                    .is_ok_and(|there| there)
            }
        }
    }

    /// One payment to each account, until the last is posted.
    async fn all_posted(&self) {
        let posted = timeout(PATIENCE, self.pay_all()).await;
        posted.expect("payments are not posted");
    }

    async fn pay_all(&self) {
        let payments = self
            .accounts
            .iter()
            .enumerate()
            .map(async |(number, account)| {
                let mut payer = Payer::new(self.apis, number);
                let paid = payer.insist(&Payment::credit(*account, 1)).await;
                paid.expect("it is refused").id()
            });
        let ids = join_all(payments).await;
        let open = "SELECT count(*) FROM transactions WHERE id = ANY($1) AND status <> 'PROCESSED'";
        loop {
            let open = sqlx::query_scalar::<_, i64>(open).bind(&ids);
            if matches!(
                open.fetch_one(self.fleet.stack.database.superuser()).await,
                Ok(0)
            ) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}
