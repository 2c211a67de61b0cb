use std::time::Duration;

use anyhow::{Context, bail};
use hyper::{StatusCode, Uri};
use tokio::time::Instant;

use super::{
    Connection, Instructions, Tally, Target,
    answer::{is_processed, transaction_id},
    thread::on_own_thread,
};

/// The pause before the first look at a transaction, which is never done so soon.
///
/// To look for the first time 1 ms before the median so far, and so to ask less, was tried: in three pairs of
/// runs of an unoptimised build the p50 was 5 to 7 ms higher with it. It cannot flatter, but what is found
/// only then counts with that time, which probably keeps a median from a slow start where it is.
pub const FIRST_LOOK: Duration = Duration::from_millis(2);
/// The pause between two looks at a transaction. Shorter ones would be more exact, and would take CPU
/// from the services that the transaction is on its way through.
pub const POLL: Duration = Duration::from_micros(500);
/// How long one transaction may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Probes at the start that are not counted: caches, plans and connections are cold.
pub const WARM_UP: u32 = 20;

/// One transaction after the other on a system that has nothing else to do, each followed to its end.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Where to.
    pub target: Target,
    /// What.
    pub instructions: Instructions,
    /// How many are counted.
    pub samples: u32,
    /// The time between the end of one and the start of the next.
    pub pause: Duration,
}

impl Probe {
    /// Posts and follows them, on a thread of its own. The latency is the time from before the POST
    /// to the answer that says PROCESSED.
    pub async fn run(self) -> anyhow::Result<Tally> {
        on_own_thread(async || self.drive().await).await?
    }

    async fn drive(self) -> anyhow::Result<Tally> {
        let mut connection = Connection::open(&self.target).await?;
        let (mut tally, started) = (Tally::new(), Instant::now());
        for number in 0..WARM_UP + self.samples {
            let took = self.follow(&mut connection, &mut tally).await?;
            if number >= WARM_UP {
                tally.record(took);
            }
            pause(self.pause);
        }
        tally.took = started.elapsed();
        Ok(tally)
    }

    async fn follow(
        &self,
        connection: &mut Connection,
        tally: &mut Tally,
    ) -> anyhow::Result<Duration> {
        let instruction = self.instructions.draw();
        let mut body = Vec::new();
        instruction.write_body(&mut body);
        let started = Instant::now();
        let path = Uri::from_static("/v1/transactions");
        let answer = connection
            .post(&path, Some(&instruction.key()), body)
            .await?;
        let text = String::from_utf8_lossy(&answer.body);
        if answer.status != StatusCode::ACCEPTED {
            bail!("a probe was answered {}: {text}", answer.status);
        }
        let id = transaction_id(&answer.body).context("an answer without id")?;
        tally.acknowledged.push(id);
        let path: Uri = format!("/v1/transactions/{id}").parse()?;
        pause(FIRST_LOOK);
        while !is_processed(&connection.get(&path).await?.body) {
            if started.elapsed() > PATIENCE {
                bail!("{id} was not processed within {} s", PATIENCE.as_secs());
            }
            pause(POLL);
        }
        Ok(started.elapsed())
    }
}

/// Blocks the thread, which has nothing else to do: the runtime's own timer is too coarse for this.
fn pause(time: Duration) {
    std::thread::sleep(time);
}
