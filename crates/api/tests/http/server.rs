use std::{io, net::SocketAddr};

use api::Service;
use common::admin::Readiness;
use sqlx::PgPool;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::harness::{PATIENCE, make_key, settings};

/// The service on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(pool: &PgPool, flags: &[&str]) -> Self {
        Self::with_intake_on(&Handle::current(), pool, flags).await
    }

    pub(crate) async fn with_intake_on(intake: &Handle, pool: &PgPool, flags: &[&str]) -> Self {
        let service = Service::start(&settings(pool, flags), &Readiness::default(), intake);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(service.serve(listener, stop.clone()));
        let key = make_key(pool, "tests", "read,write").await;
        Self {
            address,
            key,
            stop,
            served,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A POST whose body is announced and not sent.
    pub(crate) fn head(&self, content_length: usize) -> String {
        format!(
            "POST /v1/accounts HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {content_length}\r\n\r\n",
            self.key
        )
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.served)
            .await
            .expect("the server ends")
            .unwrap()
            .unwrap();
    }
}

/// Everything that comes until the server closes the connection.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("the server closes the connection").unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
