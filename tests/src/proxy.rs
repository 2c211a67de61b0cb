mod writes;

use std::{
    future::pending,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use self::writes::Writes;

/// How many bytes a throttled connection moves at once, and how long it rests behind them.
const TRICKLE_BYTES: usize = 1_024;
const TRICKLE_PAUSE: Duration = Duration::from_millis(10);

/// What a proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Each piece of the server's answers comes so much later.
    Delay(Duration),
    /// A long thin line: about 100 kB/s in each direction.
    Trickle,
    /// Connections are cut, and new ones closed at once: the server is away.
    Refuse,
    /// Connections stay open and nothing comes through any more, now or later: the server's machine
    /// is gone, or a firewall on the way has forgotten them.
    Swallow,
}

impl Mode {
    /// Whether connections live on.
    const fn forwards(self) -> bool {
        matches!(self, Self::Forward | Self::Delay(_) | Self::Trickle)
    }
}

/// A TCP forwarder in front of the database or the broker that can be switched off and on.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    cuts: Arc<AtomicU32>,
    touched: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// Whose protocol goes over a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Postgres,
    Kafka,
}

/// What every connection of a proxy looks at.
#[derive(Clone, Debug)]
struct Line {
    server: String,
    rewrite: Option<Arc<Rewrite>>,
    mode: watch::Receiver<Mode>,
    /// How many of the server's answers are still to be cut in the middle.
    cuts: Arc<AtomicU32>,
    /// How many connections or pieces of them the mode has changed anything for.
    touched: Arc<AtomicU64>,
    speaks: Speaks,
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

    async fn listen(
        server: String,
        rewrite: Option<&(dyn Fn(u16) -> Rewrite + Sync)>,
    ) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, watched) = watch::channel(Mode::Forward);
        let cuts = Arc::<AtomicU32>::default();
        let touched = Arc::<AtomicU64>::default();
        let speaks = match rewrite {
            Some(_) => Speaks::Kafka,
            None => Speaks::Postgres,
        };
        let line = Line {
            server,
            rewrite: rewrite.map(|make| Arc::new(make(address.port()))),
            mode: watched,
            cuts: Arc::clone(&cuts),
            touched: Arc::clone(&touched),
            speaks,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, line));
        let proxy = Self {
            address,
            mode,
            cuts,
            touched,
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
        self.begin(Mode::Refuse);
    }

    /// The server is gone from now on without a word: connections stay open, and silent for ever.
    pub fn swallow(&self) {
        self.begin(Mode::Swallow);
    }

    /// Every answer comes so much later from now on.
    pub fn delay(&self, by: Duration) {
        self.begin(Mode::Delay(by));
    }

    /// Little comes through at a time from now on.
    pub fn trickle(&self) {
        self.begin(Mode::Trickle);
    }

    fn begin(&self, mode: Mode) {
        self.touched.store(0, Ordering::Relaxed);
        self.mode.send_replace(mode);
    }

    /// Since it began to do anything but forward: how many connections it has broken or silenced, or how
    /// many pieces it has slowed down. None means that nobody has noticed.
    #[must_use]
    pub fn touched(&self) -> u64 {
        self.touched.load(Ordering::Relaxed)
    }

    /// The next answers of the server, so many, get through by half, and then their connections break:
    /// what became of the question its client cannot know. Of PostgreSQL's only answers to commits of
    /// something written count: to COMMIT, or to a statement that was a transaction of its own.
    pub fn cut_answers(&self, answers: u32) {
        self.cuts.store(answers, Ordering::Relaxed);
    }

    /// How many of them were not cut yet.
    #[must_use]
    pub fn answers_to_cut(&self) -> u32 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// The server is back: new connections reach it.
    pub fn restore(&self) {
        self.cuts.store(0, Ordering::Relaxed);
        self.mode.send_replace(Mode::Forward);
    }
}

async fn accept(listener: TcpListener, line: Line) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let line = line.clone();
        connections.spawn(async move {
            let mut mode = line.mode.clone();
            // The server's side of a swallowed connection stays open too: it hears no more of its
            // client than the client of it.
            let mut forwarding = pin!(forward(client, &line));
            let changed = tokio::select! {
                () = &mut forwarding => return,
                changed = mode.wait_for(|mode| !mode.forwards()) => changed.map(|mode| *mode),
            };
            line.touch();
            if changed.is_ok_and(|mode| mode == Mode::Swallow) {
                pending::<()>().await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(client: TcpStream, line: &Line) {
    let Ok(server) = TcpStream::connect(&line.server).await else {
        return;
    };
    let _small_packets_go_at_once = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let writes = Writes::default();
    tokio::select! {
        () = ask(&mut from_client, &mut to_server, line, &writes) => {}
        () = answer(&mut from_server, &mut to_client, line, &writes) => {}
    }
}

/// Moves the client's bytes until one side is closed.
async fn ask(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    line: &Line,
    writes: &Writes,
) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    while matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
        if line.speaks == Speaks::Postgres {
            writes.asked(&buffer);
        }
        if line.send(to, &buffer).await.is_err() {
            return;
        }
        buffer.clear();
    }
}

/// Moves the server's bytes until one side is closed, or an answer is to be cut.
async fn answer(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    line: &Line,
    writes: &Writes,
) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    while matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
        let rewrite = line.rewrite.as_deref();
        let whole = rewrite.map_or(buffer.len(), |rewrite| rewrite.apply(&mut buffer));
        if line.cuts_this_one(&buffer[..whole], writes) {
            let _nobody_cares_any_more = to.write_all(&buffer[..whole / 2]).await;
            return;
        }
        let mode = *line.mode.borrow();
        if let Mode::Delay(by) = mode {
            line.touch();
            sleep(by).await;
        }
        if line.send(to, &buffer[..whole]).await.is_err() {
            return;
        }
        buffer.drain(..whole);
    }
}

impl Line {
    /// The mode has changed something for somebody.
    fn touch(&self) {
        self.touched.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether an answer that has just arrived is one of those to cut.
    fn cuts_this_one(&self, answer: &[u8], writes: &Writes) -> bool {
        if self.speaks == Speaks::Postgres && !writes.committed_by(answer) {
            return false;
        }
        let one_less = |cuts: u32| cuts.checked_sub(1);
        let order = Ordering::Relaxed;
        self.cuts.fetch_update(order, order, one_less).is_ok()
    }

    /// Sends bytes as fast as the line allows.
    async fn send(&self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
        let mode = *self.mode.borrow();
        if mode != Mode::Trickle {
            return to.write_all(bytes).await;
        }
        self.touch();
        for piece in bytes.chunks(TRICKLE_BYTES) {
            to.write_all(piece).await?;
            sleep(TRICKLE_PAUSE).await;
        }
        Ok(())
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
