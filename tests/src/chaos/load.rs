//! Clients that pay, each one request after the other, and each request until it is acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    book::Payment,
    client::{Answer, Client},
};

/// Accounts that several clients pay into at once.
const HOT_ACCOUNTS: usize = 4;
/// Clients with single payments.
const PAYERS: usize = 8;
/// Accounts of the batches.
const COLD_ACCOUNTS: usize = 100;
/// Clients with batches.
const BATCHERS: usize = 4;
/// Accounts of a batch, and the items for each of them: their order among themselves is promised, too.
const BATCH_ACCOUNTS: usize = 10;
const ITEMS_EACH: u32 = 2;
/// The pause of a payer and of a batcher between two requests.
const PAYER_PACE: Duration = Duration::from_millis(40);
const BATCHER_PACE: Duration = Duration::from_millis(900);
/// How long a request is sent again before that is a wrong: longer than any fault.
const PATIENCE: Duration = Duration::from_mins(3);
/// The pause before a request without a clear answer is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Every so many payments of a client, one asks for more than there is.
const TOO_MUCH_EVERY: u32 = 10;
const TOO_MUCH_CENTS: i64 = 1_000_000_000;

/// The clients of a round.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Result<(), String>>,
    /// The accounts that several clients pay into.
    pub(super) hot_accounts: Vec<Uuid>,
}

impl Load {
    /// Opens accounts and starts the clients; each knows the addresses of all apis.
    pub(super) async fn start(apis: &[Client]) -> Self {
        let mut hot_accounts = Vec::new();
        for _ in 0..HOT_ACCOUNTS {
            hot_accounts.push(apis[0].open_account().await);
        }
        let mut cold_accounts = Vec::new();
        for _ in 0..COLD_ACCOUNTS {
            cold_accounts.push(apis[0].open_account().await);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..PAYERS {
            let payer = Payer::new(apis, number);
            let account = hot_accounts[number % HOT_ACCOUNTS];
            clients.spawn(pay_on(payer, account, Arc::clone(&stop)));
        }
        for number in 0..BATCHERS {
            let payer = Payer::new(apis, number);
            let mine = COLD_ACCOUNTS / BATCHERS;
            let accounts = cold_accounts[number * mine..][..mine].to_vec();
            clients.spawn(pay_batches_on(payer, accounts, Arc::clone(&stop)));
        }
        Self {
            stop,
            clients,
            hot_accounts,
        }
    }

    /// Lets each client have its last request acknowledged; answers what was wrong.
    pub(super) async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let ends = self.clients.join_all().await;
        ends.into_iter().filter_map(Result::err).collect()
    }
}

/// A client that goes to the next api when one does not answer well.
pub(super) struct Payer {
    apis: Vec<Client>,
    at: usize,
}

impl Payer {
    pub(super) fn new(apis: &[Client], first: usize) -> Self {
        Self {
            apis: apis.to_vec(),
            at: first,
        }
    }

    fn api(&self) -> &Client {
        &self.apis[self.at % self.apis.len()]
    }

    /// Sends a payment until it is acknowledged.
    pub(super) async fn insist(&mut self, payment: &Payment) -> Result<Answer, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.api().try_pay(payment).await {
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer) => may_come_again(answer.status.as_u16(), &answer)?,
                Err(_broken) => {}
            }
            self.go_on(deadline, &format!("{payment:?}")).await?;
        }
    }

    /// Sends a batch until each item is acknowledged.
    async fn insist_on_all(&mut self, payments: &[Payment]) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut open = payments.to_vec();
        while !open.is_empty() {
            if let Ok(answer) = self.api().try_pay_batch(&open).await {
                let mut refused = Vec::new();
                for (index, payment) in open.into_iter().enumerate() {
                    let status = answer.item_status(index);
                    if !matches!(status.as_u16(), 200 | 202) {
                        may_come_again(status.as_u16(), &answer)?;
                        refused.push(payment);
                    }
                }
                open = refused;
                if open.is_empty() {
                    return Ok(());
                }
            }
            self.go_on(deadline, "a batch").await?;
        }
        Ok(())
    }

    async fn go_on(&mut self, deadline: Instant, what: &str) -> Result<(), String> {
        self.at += 1;
        sleep(AGAIN_AFTER).await;
        if Instant::now() < deadline {
            Ok(())
        } else {
            Err(format!("never acknowledged: {what}"))
        }
    }
}

/// A request may be refused because something is away, and for no other reason.
fn may_come_again(status: u16, answer: &Answer) -> Result<(), String> {
    match status {
        408 | 503 | 504 => Ok(()),
        _ => Err(format!("answered {status}: {}", answer.body)),
    }
}

/// A mix that moves the balance up in small steps, with some refusals in it.
fn payment(account: Uuid, number: u32) -> Payment {
    match number {
        n if n % TOO_MUCH_EVERY == 0 => Payment::debit(account, TOO_MUCH_CENTS),
        n if n % 3 == 0 => Payment::debit(account, 700),
        _ => Payment::credit(account, 500),
    }
}

async fn pay_on(mut payer: Payer, account: Uuid, stop: Arc<AtomicBool>) -> Result<(), String> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        payer.insist(&payment(account, number)).await?;
        sleep(PAYER_PACE).await;
    }
    Ok(())
}

async fn pay_batches_on(
    mut payer: Payer,
    accounts: Vec<Uuid>,
    stop: Arc<AtomicBool>,
) -> Result<(), String> {
    let mut turns = accounts.iter().cycle();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let mine: Vec<Uuid> = turns.by_ref().take(BATCH_ACCOUNTS).copied().collect();
        let items = (1..=ITEMS_EACH).flat_map(|item| {
            let mine = mine.iter();
            mine.map(move |account| payment(*account, number + item))
        });
        let batch: Vec<_> = items.collect();
        number += ITEMS_EACH;
        payer.insist_on_all(&batch).await?;
        sleep(BATCHER_PACE).await;
    }
    Ok(())
}
