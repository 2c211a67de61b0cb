//! A way to the database that a test can cut, or silence.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

pub(crate) struct Proxy {
    address: SocketAddr,
    server: String,
    cut: CancellationToken,
    /// Silences the connections that are open.
    silence: Arc<Mutex<CancellationToken>>,
}

impl Proxy {
    /// A way to a test's own database.
    pub(crate) async fn to(pool: &PgPool) -> Self {
        let options = pool.connect_options();
        let server = format!("{}:{}", options.get_host(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = CancellationToken::new();
        let silence = Arc::default();
        serve(listener, server.clone(), cut.clone(), Arc::clone(&silence));
        Self {
            address,
            server,
            cut,
            silence,
        }
    }

    /// The test's own database, reached this way.
    pub(crate) fn options(&self, pool: &PgPool) -> PgConnectOptions {
        let options = (*pool.connect_options()).clone();
        options
            .host(&self.address.ip().to_string())
            .port(self.address.port())
    }

    /// Breaks all connections, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// Lets open connections say nothing more, as if a cable had been pulled; new ones go through.
    pub(crate) fn silence(&self) {
        std::mem::take(&mut *self.silence.lock().unwrap()).cancel();
    }

    /// Lets connections through again.
    pub(crate) async fn mend(&mut self) {
        self.cut = CancellationToken::new();
        let listener = TcpListener::bind(self.address).await.unwrap();
        let silence = Arc::clone(&self.silence);
        serve(listener, self.server.clone(), self.cut.clone(), silence);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

fn serve(
    listener: TcpListener,
    server: String,
    cut: CancellationToken,
    silence: Arc<Mutex<CancellationToken>>,
) {
    tokio::spawn(async move {
        while let Some(Ok((mut client, _))) = cut.run_until_cancelled(listener.accept()).await {
            let (server, cut) = (server.clone(), cut.clone());
            let silent = silence.lock().unwrap().clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let copying = async {
                    let copy = copy_bidirectional(&mut client, &mut server);
                    if silent.run_until_cancelled(copy).await.is_none() {
                        std::future::pending::<()>().await;
                    }
                };
                let _ = cut.run_until_cancelled(copying).await;
            });
        }
    });
}
