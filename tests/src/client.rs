use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    book::{Book, Payment},
    wait::{PATIENCE, eventually},
};

/// How long one request may take. It is longer than any deadline of the api's, so that the api
/// decides.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before a request without a clear answer is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Where the api listens at the moment: a restarted one listens elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Address(Arc<Mutex<Option<SocketAddr>>>);

impl Address {
    /// The api listens here from now on.
    pub fn set(&self, address: SocketAddr) {
        *self.0.lock().unwrap() = Some(address);
    }

    /// Where it listens.
    ///
    /// # Panics
    /// If no api was started yet.
    #[must_use]
    pub fn get(&self) -> SocketAddr {
        self.0.lock().unwrap().expect("no api was started")
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The JSON of the body; null for none.
    pub body: Value,
}

impl Answer {
    /// A header's text; empty without one.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Holds the answer to a status.
    ///
    /// # Panics
    /// If it has another one.
    #[must_use]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }

    /// Holds the answer to be a problem of this status and code (RFC 9457).
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["code"], code, "{}", self.body);
        self.expect(status)
    }

    /// The status of one item of a batch; the whole answer's where it has none of its own.
    #[must_use]
    pub fn item_status(&self, index: usize) -> StatusCode {
        let status = self.body["results"][index]["status"].as_u64();
        let status = status.and_then(|status| u16::try_from(status).ok());
        status
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(self.status)
    }

    /// The id that the body names.
    ///
    /// # Panics
    /// If it names none.
    #[must_use]
    pub fn id(&self) -> Uuid {
        let id = self.body["id"].as_str().and_then(|id| id.parse().ok());
        id.unwrap_or_else(|| panic!("no id in {}", self.body))
    }
}

/// A client of the api with one key. Whatever payment it sends it writes into the test's book.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    api: Address,
    key: Option<String>,
    book: Book,
}

impl Client {
    /// A client with a key, or with none.
    #[must_use]
    pub fn new(api: Address, key: Option<String>, book: Book) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .expect("no HTTP client");
        Self {
            http,
            api,
            key,
            book,
        }
    }

    /// A request for a path, with the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.api.get());
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request; an error is a connection that failed or broke.
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|error| panic!("{status}, no JSON ({error}): {bytes:?}"))
        };
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Sends a request again for as long as it is answered with `unavailable`, which a database on a busy
    /// machine may cause at any time. Only for what may be sent again; a test of that answer itself uses
    /// [`Client::send`].
    ///
    /// # Panics
    /// If the connection breaks.
    async fn send_patiently(&self, request: RequestBuilder) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let copy = request.try_clone().expect("a body that is a stream");
            let answer = self.send(copy).await.expect("the connection broke");
            if !again(&answer, deadline).await {
                return answer;
            }
        }
    }

    /// Gets a path, patiently.
    ///
    /// # Panics
    /// If the connection breaks.
    pub async fn get(&self, path: &str) -> Answer {
        self.send_patiently(self.request(Method::GET, path)).await
    }

    /// Opens an account that holds EUR, patiently: under an id of ours, so that a repeat opens no other.
    ///
    /// # Panics
    /// If it is not opened.
    pub async fn open_account(&self) -> Uuid {
        let request = self
            .request(Method::POST, "/v1/accounts")
            .json(&json!({ "id": Uuid::now_v7(), "currency": "EUR" }));
        let opened = self.send_patiently(request).await;
        assert!(
            opened.status.is_success(),
            "no account was opened: {}",
            opened.body
        );
        opened.id()
    }

    /// Changes an account's status, patiently.
    ///
    /// # Panics
    /// If it is not changed.
    pub async fn set_account_status(&self, account: Uuid, status: &str) {
        let request = self
            .request(Method::PATCH, &format!("/v1/accounts/{account}"))
            .json(&json!({ "status": status }));
        let changed = self.send_patiently(request).await;
        assert_eq!(changed.expect(200).body["status"], status);
    }

    /// Sends a payment once; an error is a connection that failed or broke.
    pub async fn try_pay(&self, payment: &Payment) -> Result<Answer, reqwest::Error> {
        let request = self
            .request(Method::POST, "/v1/transactions")
            .header("Idempotency-Key", &payment.key)
            .json(&payment.body());
        self.book.sending(payment);
        let answer = self.send(request).await?;
        self.book.answered(payment, answer.status, &answer.body);
        Ok(answer)
    }

    /// Sends a payment, patiently.
    ///
    /// # Panics
    /// If the connection breaks.
    pub async fn pay(&self, payment: &Payment) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.pay_once(payment).await;
            if !again(&answer, deadline).await {
                return answer;
            }
        }
    }

    /// Sends a payment once.
    ///
    /// # Panics
    /// If the connection breaks.
    pub async fn pay_once(&self, payment: &Payment) -> Answer {
        self.try_pay(payment).await.expect("the connection broke")
    }

    /// Sends a payment until it is acknowledged, as a careful client does: under the same key after
    /// a broken connection, a 503 or a 504.
    ///
    /// # Panics
    /// If it is refused, or not acknowledged in time.
    pub async fn insist(&self, payment: &Payment) -> Uuid {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.try_pay(payment).await {
                Ok(answer) if answer.status.is_success() => return answer.id(),
                Ok(answer) => assert!(
                    matches!(answer.status.as_u16(), 503 | 504),
                    "{}: {}",
                    answer.status,
                    answer.body
                ),
                Err(_broken) => {}
            }
            sleep(AGAIN_AFTER).await;
        }
        panic!("never acknowledged: {payment:?}")
    }

    /// Sends payments as one batch; what becomes of each is in the answer, and in the book.
    ///
    /// # Panics
    /// If the connection breaks.
    pub async fn pay_batch(&self, payments: &[Payment]) -> Answer {
        let answer = self.try_pay_batch(payments).await;
        answer.expect("the connection broke")
    }

    /// The same; an error is a connection that failed or broke.
    pub async fn try_pay_batch(&self, payments: &[Payment]) -> Result<Answer, reqwest::Error> {
        let items: Vec<_> = payments.iter().map(Payment::item).collect();
        let request = self
            .request(Method::POST, "/v1/transactions/batch")
            .json(&json!({ "transactions": items }));
        for payment in payments {
            self.book.sending(payment);
        }
        let answer = self.send(request).await?;
        for (index, payment) in payments.iter().enumerate() {
            let result = &answer.body["results"][index];
            let status = answer.item_status(index);
            self.book.answered(payment, status, &result["transaction"]);
        }
        let created = |index: &usize| answer.item_status(*index) == StatusCode::ACCEPTED;
        let created = (0..payments.len()).filter(created);
        self.book
            .created_together(created.map(|index| &payments[index]));
        Ok(answer)
    }

    /// Waits until a transaction has come to its end, and hands it over.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn ended(&self, transaction: Uuid) -> Value {
        let path = format!("/v1/transactions/{transaction}");
        eventually(&format!("the end of {transaction}"), async || {
            let found = self.get(&path).await.expect(200).body;
            matches!(found["status"].as_str(), Some("PROCESSED" | "FAILED")).then_some(found)
        })
        .await
    }
}

/// Waits before a request is sent again; answers whether it is to be: behind `unavailable`, and not for ever.
async fn again(answer: &Answer, deadline: Instant) -> bool {
    let is_due = answer.body["code"] == "unavailable" && Instant::now() < deadline;
    if is_due {
        sleep(AGAIN_AFTER).await;
    }
    is_due
}
