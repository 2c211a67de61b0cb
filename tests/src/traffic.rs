use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use crate::{
    book::{Book, Payment},
    client::Client,
    wait::eventually,
};

/// The pause of a client between two payments: a steady trickle, not a load test.
const PACE: Duration = Duration::from_millis(5);
/// Every so many payments of a client, one asks for more than there is.
const TOO_MUCH_EVERY: u32 = 10;
/// More than any account of a test ever holds.
const TOO_MUCH_CENTS: i64 = 1_000_000_000;

/// Clients that pay until they are stopped, each one payment after the other, and each payment until
/// it is acknowledged.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
    book: Book,
}

impl Traffic {
    /// Starts clients, which take turns on the accounts: fewer accounts than clients make hot ones.
    #[must_use]
    pub fn start(client: &Client, book: &Book, accounts: &[Uuid], clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let accounts = accounts.iter().cycle().take(clients);
        let clients = accounts.map(|account| pay_on(client.clone(), *account, Arc::clone(&stop)));
        Self {
            clients: clients.collect(),
            stop,
            book: book.clone(),
        }
    }

    /// Waits until so many more payments are acknowledged.
    pub async fn flow(&self, payments: usize) {
        let goal = self.book.acknowledged() + payments;
        eventually(&format!("{payments} more acknowledgements"), async || {
            (self.book.acknowledged() >= goal).then_some(())
        })
        .await;
    }

    /// Lets each client finish its payment.
    ///
    /// # Panics
    /// If one of them was answered what it should not have been.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
    }
}

/// A mix that moves the balance up in small steps, with some refusals in it.
async fn pay_on(client: Client, account: Uuid, stop: Arc<AtomicBool>) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let payment = match number {
            n if n % TOO_MUCH_EVERY == 0 => Payment::debit(account, TOO_MUCH_CENTS),
            n if n % 3 == 0 => Payment::debit(account, 700),
            _ => Payment::credit(account, 500),
        };
        client.insist(&payment).await;
        sleep(PACE).await;
    }
}
