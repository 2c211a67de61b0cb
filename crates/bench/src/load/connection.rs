use std::net::SocketAddr;

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The header that names a payment, in lower case as HTTP libraries keep it.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where the api listens, and with which headers it is asked. They are built once: a clone of one
/// costs no allocation.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the api listens.
    pub address: SocketAddr,
    host: HeaderValue,
    authorization: HeaderValue,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Whether it says that the transaction may have been written all the same (504, `outcome_unknown`).
    #[must_use]
    pub fn leaves_outcome_open(&self) -> bool {
        self.status == StatusCode::GATEWAY_TIMEOUT
    }
}

/// A keep-alive connection to the api.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

impl Target {
    /// The api at an address, asked with an API key.
    pub fn new(address: SocketAddr, key: &str) -> anyhow::Result<Self> {
        let authorization = HeaderValue::from_str(&format!("Bearer {key}"));
        Ok(Self {
            address,
            host: HeaderValue::from_str(&address.to_string())?,
            authorization: authorization.context("the API key is no header value")?,
        })
    }

    fn request(&self, method: Method, path: &Uri, body: Vec<u8>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(AUTHORIZATION, self.authorization.clone());
        request
    }
}

impl Connection {
    /// Connects; the connection lives on the runtime that this is called on.
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        // Head and body of a small request in one buffer cost the kernel less than two in a list.
        let (sender, connection) = http1::Builder::new()
            .writev(false)
            .handshake(TokioIo::new(stream))
            .await?;
        // Its errors are those of the requests on it.
        tokio::spawn(connection);
        Ok(Self {
            sender,
            target: target.clone(),
        })
    }

    /// Whether no further request can be sent.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Posts JSON, under an idempotency key where there is one.
    pub async fn post(
        &mut self,
        path: &Uri,
        key: Option<&[u8]>,
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.target.request(Method::POST, path, body);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = key {
            headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(key)?);
        }
        self.send(request).await
    }

    /// Gets a path.
    pub async fn get(&mut self, path: &Uri) -> anyhow::Result<Answer> {
        let request = self.target.request(Method::GET, path, Vec::new());
        self.send(request).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, body })
    }
}
