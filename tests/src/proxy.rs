use std::{future::pending, net::SocketAddr, pin::pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What a proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Connections are cut, and new ones closed at once: the server is away.
    Refuse,
    /// Connections stay open and nothing comes through any more, now or later: the server's machine
    /// is gone, or a firewall on the way has forgotten them.
    Swallow,
}

/// A TCP forwarder in front of the database or the broker that can be switched off and on.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _tasks: JoinSet<()>,
}

/// Bytes in the server's answers that are replaced by as many others.
#[derive(Debug)]
struct Rewrite {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Proxy {
    /// A proxy in front of a server that speaks of no address of its own.
    pub async fn start(server: String) -> Self {
        Self::listen(server, None).await.0
    }

    /// A proxy in front of a Kafka broker. Brokers tell their clients where to connect, which would
    /// lead them past the proxy: it puts its own port into those answers. The protocol writes an
    /// address as the host's bytes and the port as an int32 behind them, so nothing changes length.
    pub async fn start_for_kafka(server: String, advertised: (String, u16)) -> Self {
        let address = |port: u16| {
            let mut bytes = advertised.0.clone().into_bytes();
            bytes.extend(u32::from(port).to_be_bytes());
            bytes
        };
        let (proxy, _) = Self::listen(
            server,
            Some(&|port| Rewrite {
                from: address(advertised.1),
                to: address(port),
            }),
        )
        .await;
        proxy
    }

    async fn listen(server: String, rewrite: Option<&dyn Fn(u16) -> Rewrite>) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, watched) = watch::channel(Mode::Forward);
        let rewrite = rewrite.map(|make| Arc::new(make(address.port())));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, rewrite, watched));
        let proxy = Self {
            address,
            mode,
            _tasks: tasks,
        };
        (proxy, address.port())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server is away from now on: connections break, new ones too.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Refuse);
    }

    /// The server is gone from now on without a word: connections stay open, and silent for ever.
    pub fn swallow(&self) {
        self.mode.send_replace(Mode::Swallow);
    }

    /// The server is back: new connections reach it.
    pub fn restore(&self) {
        self.mode.send_replace(Mode::Forward);
    }
}

async fn accept(
    listener: TcpListener,
    server: String,
    rewrite: Option<Arc<Rewrite>>,
    mode: watch::Receiver<Mode>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let mut mode = mode.clone();
        let (server, rewrite) = (server.clone(), rewrite.clone());
        connections.spawn(async move {
            // The server's side of a swallowed connection stays open too: it hears no more of its
            // client than the client of it.
            let mut forwarding = pin!(forward(client, &server, rewrite.as_deref()));
            let changed = tokio::select! {
                () = &mut forwarding => return,
                changed = mode.wait_for(|mode| *mode != Mode::Forward) => changed.map(|mode| *mode),
            };
            if changed.is_ok_and(|mode| mode == Mode::Swallow) {
                pending::<()>().await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(client: TcpStream, server: &str, rewrite: Option<&Rewrite>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let _small_packets_go_at_once = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::select! {
        () = pump(&mut from_client, &mut to_server, None) => {}
        () = pump(&mut from_server, &mut to_client, rewrite) => {}
    }
}

/// Moves bytes until one side is closed.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    rewrite: Option<&Rewrite>,
) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    while matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
        let whole = rewrite.map_or(buffer.len(), |rewrite| rewrite.apply(&mut buffer));
        if to.write_all(&buffer[..whole]).await.is_err() {
            return;
        }
        buffer.drain(..whole);
    }
}

impl Rewrite {
    /// Replaces what stands in the buffer, and says how much of it may go: its end may be the
    /// beginning of something to replace.
    fn apply(&self, buffer: &mut [u8]) -> usize {
        let length = self.from.len();
        let mut at = 0;
        while at < buffer.len() {
            let rest = &mut buffer[at..];
            if rest.len() < length && self.from.starts_with(rest) {
                return at;
            }
            if rest.starts_with(&self.from) {
                rest[..length].copy_from_slice(&self.to);
                at += length;
            } else {
                at += 1;
            }
        }
        buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_replaced_wherever_the_bytes_are_split() {
        let rewrite = Rewrite {
            from: b"host1234".to_vec(),
            to: b"host9999".to_vec(),
        };
        let text = b"..host1234..hohost1234host12";
        for split in 0..text.len() {
            let (mut buffer, mut out) = (text[..split].to_vec(), Vec::new());
            let whole = rewrite.apply(&mut buffer);
            out.extend(buffer.drain(..whole));
            buffer.extend(&text[split..]);
            let whole = rewrite.apply(&mut buffer);
            out.extend(&buffer[..whole]);
            assert_eq!(out, b"..host9999..hohost9999", "split at {split}");
        }
    }
}
