//! Clients that hang up, over plain TCP.

use std::net::SocketAddr;

use e2e::{Payment, Stack, test};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use uuid::Uuid;

/// Clients of each kind.
const CLIENTS: usize = 10;

#[test]
fn a_client_that_hangs_up_within_its_request_leaves_nothing_behind() {
    test(async |stack| {
        let scene = Scene::new(stack).await;
        let payments = scene.payments();
        for payment in &payments {
            let request = scene.request(payment);
            // The head and half of the body.
            let cut = request.len() - payment.body().to_string().len() / 2;
            scene.hang_up_after(payment, &request[..cut]).await;
        }
        for payment in &payments {
            let _first = scene.client.pay(payment).await.expect(202);
        }
        assert_eq!(stack.audit().await.processed(), CLIENTS);
    });
}

#[test]
fn a_client_that_hangs_up_before_its_answer_learns_the_outcome_by_asking_again() {
    test(async |stack| {
        let scene = Scene::new(stack).await;
        let payments = scene.payments();
        for payment in &payments {
            scene.hang_up_after(payment, &scene.request(payment)).await;
        }
        for payment in &payments {
            let answer = scene.client.pay(payment).await;
            assert!(
                matches!(answer.status.as_u16(), 200 | 202),
                "{}",
                answer.body
            );
        }
        assert_eq!(stack.audit().await.processed(), CLIENTS);
    });
}

struct Scene<'a> {
    stack: &'a Stack,
    api: SocketAddr,
    key: String,
    client: e2e::Client,
    account: Uuid,
}

impl<'a> Scene<'a> {
    async fn new(stack: &'a Stack) -> Self {
        stack.start_all().await;
        let (_, key) = stack.make_key("read,write").await;
        let client = stack.client_of(Some(key.clone()));
        let account = client.open_account().await;
        Self {
            stack,
            api: stack.api.get(),
            key,
            client,
            account,
        }
    }

    fn payments(&self) -> Vec<Payment> {
        (0..CLIENTS)
            .map(|_| Payment::credit(self.account, 100))
            .collect()
    }

    /// The whole request, byte for byte.
    fn request(&self, payment: &Payment) -> String {
        let body = payment.body().to_string();
        format!(
            "POST /v1/transactions HTTP/1.1\r\n\
             Host: {}\r\n\
             Authorization: Bearer {}\r\n\
             Content-Type: application/json\r\n\
             Idempotency-Key: {}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.api,
            self.key,
            payment.key,
            body.len()
        )
    }

    async fn hang_up_after(&self, payment: &Payment, bytes: &str) {
        self.stack.book.sending(payment);
        let mut connection = TcpStream::connect(self.api).await.expect("no connection");
        connection
            .write_all(bytes.as_bytes())
            .await
            .expect("not sent");
    }
}
