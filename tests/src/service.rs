use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    database::Role,
    wait::{PATIENCE, eventually},
};

/// The folder of the services' binaries, where they do not lie beside the running one.
const BIN_DIR_VARIABLE: &str = "POSTONCE_BIN_DIR";
/// How many lines of a service's log are kept. No test comes near it; a long load must not fill the
/// memory with it.
const LOG_LINES_MAX: usize = 50_000;

/// What a crash point ends a process with: so does an assertion of a library.
const SIGABRT: i32 = 6;
/// How long the last line of a process that has ended may take through its pipe.
const LAST_LINE_MAX: Duration = Duration::from_secs(10);

/// One of the three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The REST service.
    Api,
    /// Outbox to Kafka.
    Publisher,
    /// Kafka to ledger.
    Worker,
}

impl Kind {
    /// All there are, in the order in which a payment passes them.
    pub const ALL: [Self; 3] = [Self::Api, Self::Publisher, Self::Worker];

    /// The name of its binary.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Publisher => "publisher",
            Self::Worker => "worker",
        }
    }

    /// The role under which it works.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Api => Role::Api,
            Self::Publisher => Role::Publisher,
            Self::Worker => Role::Worker,
        }
    }
}

/// The environment of a process: it inherits nothing else.
pub type Settings = BTreeMap<String, String>;

/// A service that a test has started. Clones are the same process, which is killed when the last
/// one goes.
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    pid: u32,
    child: tokio::sync::Mutex<Child>,
    lines: Lines,
    addresses: Mutex<BTreeMap<String, SocketAddr>>,
    http: reqwest::Client,
}

type Lines = Arc<Mutex<Vec<String>>>;

/// Where a service's binary lies: in the folder that `POSTONCE_BIN_DIR` names, or beside the running
/// program.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn binary(kind: Kind) -> PathBuf {
    let folder = env::var_os(BIN_DIR_VARIABLE).map_or_else(folder_of_this_build, PathBuf::from);
    let binary = folder.join(kind.name());
    assert!(
        binary.is_file(),
        "{} is missing: run `cargo build --workspace` first",
        binary.display()
    );
    binary
}

/// Where cargo puts the programs of this build: tests lie one folder deeper.
fn folder_of_this_build() -> PathBuf {
    let this = env::current_exe().expect("a process without executable");
    let folder = this.parent().expect("an executable without folder");
    let tests = folder.ends_with("deps").then(|| folder.parent()).flatten();
    tests.map_or_else(|| folder.to_owned(), Path::to_owned)
}

/// A process of a binary that inherits no environment.
pub(crate) fn command(kind: Kind, arguments: &[&str], settings: &Settings) -> Command {
    let mut command = Command::new(binary(kind));
    command
        .args(arguments)
        .env_clear()
        .envs(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command of a binary to its end.
pub async fn run(kind: Kind, arguments: &[&str], settings: &Settings) -> Output {
    let output = command(kind, arguments, settings).output();
    let output = timeout(PATIENCE, output).await.expect("it does not end");
    output.expect("it does not start")
}

impl Service {
    /// Starts a service and waits until it listens.
    pub(crate) fn start(kind: Kind, settings: &Settings) -> Self {
        let mut child = command(kind, &[], settings).spawn().unwrap();
        let lines = Lines::default();
        collect(child.stdout.take().unwrap(), &lines, LOG_LINES_MAX);
        // What comes here is little, and tells why a process ended: it is kept behind a log that is full.
        collect(child.stderr.take().unwrap(), &lines, 2 * LOG_LINES_MAX);
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        Self(Arc::new(Inner {
            kind,
            pid: child.id().expect("a child without pid"),
            child: tokio::sync::Mutex::new(child),
            lines,
            addresses: Mutex::default(),
            http: http.build().unwrap(),
        }))
    }

    /// Which of the three it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Waits for the address that one of its servers (`admin`, or `api`) got.
    ///
    /// # Panics
    /// If it ends instead.
    pub async fn address(&self, server: &str) -> SocketAddr {
        if let Some(address) = self.known_address(server) {
            return address;
        }
        let address = self.announced(server).await;
        let mut addresses = self.0.addresses.lock().unwrap();
        addresses.insert(server.to_owned(), address);
        address
    }

    fn known_address(&self, server: &str) -> Option<SocketAddr> {
        self.0.addresses.lock().unwrap().get(server).copied()
    }

    async fn announced(&self, server: &str) -> SocketAddr {
        let what = format!("{} ({server}) listens", self.label());
        eventually(&what, async || {
            let ended = !self.runs().await;
            let address = self.listening(server);
            assert!(address.is_some() || !ended, "{} has ended", self.label());
            address
        })
        .await
    }

    /// Where one of its servers listens, as far as its log says it by now.
    pub(crate) fn listening(&self, server: &str) -> Option<SocketAddr> {
        let lines = self.0.lines.lock().unwrap();
        lines.iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening" && line["server"] == server)
                .then(|| line["addr"].as_str().unwrap().parse().unwrap())
        })
    }

    /// What `/ready` or `/health` of its admin server says: status and body.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn probe(&self, path: &str) -> (u16, Value) {
        let url = format!("http://{}{path}", self.address("admin").await);
        let answer = self.0.http.get(url).send().await.expect("no answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("no JSON"))
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        eventually(&format!("{} is ready", self.label()), async || {
            let (status, _reasons_are_in_the_log) = self.probe("/ready").await;
            (status == 200).then_some(())
        })
        .await;
    }

    /// Waits until it says that it is not ready, and hands over the reasons.
    pub async fn unready(&self) -> Value {
        eventually(&format!("{} is unready", self.label()), async || {
            let (status, body) = self.probe("/ready").await;
            (status == 503).then(|| body["reasons"].clone())
        })
        .await
    }

    /// The sum over a metric's series, or nothing while there are none.
    ///
    /// # Panics
    /// If the admin server does not answer.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        self.metric_of(name, &[]).await
    }

    /// The sum over those series of a metric that bear all these labels.
    ///
    /// # Panics
    /// If the admin server does not answer, or was never waited for.
    pub async fn metric_of(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let address = self.known_address("admin").expect("does it listen?");
        let url = format!("http://{address}/metrics");
        let answer = self.0.http.get(url).send().await.expect("no answer");
        let text = answer.text().await.expect("no text");
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        text.lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .reduce(|sum, value| sum + value)
    }

    /// Waits until a counter has come to this, over those of its series that bear these labels: what is
    /// counted behind a commit comes a moment later.
    pub async fn counts(&self, name: &str, labels: &[(&str, &str)], expected: usize) {
        eventually(&format!("{name} {labels:?} is {expected}"), async || {
            let counted = self.metric_of(name, labels).await?;
            (counted.to_string() == expected.to_string()).then_some(())
        })
        .await;
    }

    /// Whether its log has a line with this message.
    pub(crate) fn says(&self, message: &str) -> bool {
        let lines = self.0.lines.lock().unwrap();
        lines.iter().any(|line| line.contains(message))
    }

    /// Sends a signal by its name, without `SIG`.
    ///
    /// # Panics
    /// If there is no such process any more.
    pub async fn signal(&self, name: &str) {
        assert!(
            self.try_signal(name).await,
            "no {name} for {}",
            self.label()
        );
    }

    /// The same, for a process that may be gone; answers whether it was there.
    pub(crate) async fn try_signal(&self, name: &str) -> bool {
        // The shell's own `kill`: not every machine has the program.
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.0.pid.to_string()])
            .stderr(Stdio::null())
            .status()
            .await;
        status.unwrap().success()
    }

    /// Ends it as an operator does (SIGTERM), and holds it to a clean exit.
    ///
    /// # Panics
    /// If it does not end in time, or with another code than 0.
    pub async fn terminate(&self) {
        self.signal("TERM").await;
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}: {status}", self.label());
    }

    /// Ends it at once (SIGKILL).
    pub async fn kill(&self) {
        self.try_signal("KILL").await;
        self.ended().await;
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn ended(&self) -> ExitStatus {
        let mut child = self.0.child.lock().await;
        let ended = timeout(PATIENCE, child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("{} does not end", self.label()))
            .unwrap()
    }

    /// Waits for its end, and says whether it ended at this crash point, as its last line tells.
    pub(crate) async fn crashed_at(&self, point: &str) -> bool {
        if self.ended().await.signal() != Some(SIGABRT) {
            return false;
        }
        let line = format!("fault point {point}:");
        let told = async {
            while !self.says(&line) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LAST_LINE_MAX, told).await.is_ok()
    }

    /// Whether the process is there.
    ///
    /// # Panics
    /// If that cannot be told.
    pub async fn runs(&self) -> bool {
        self.0.child.lock().await.try_wait().unwrap().is_none()
    }

    /// What it has written so far to standard output and standard error; of a very long log only
    /// the beginning.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.0.lines.lock().unwrap().clone()
    }

    /// Its name and process, for messages.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {}", self.0.kind.name(), self.0.pid)
    }
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, lines: &Lines, most: usize) {
    let lines = Arc::clone(lines);
    let mut stream = BufReader::new(stream).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = stream.next_line().await {
            let mut lines = lines.lock().unwrap();
            // Read on in any case: a service must not wait for somebody to read its log.
            if lines.len() < most {
                lines.push(line);
            }
        }
    });
}
