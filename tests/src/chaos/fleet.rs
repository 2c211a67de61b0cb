use std::{
    collections::BTreeMap,
    sync::{Mutex as SyncMutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep, timeout},
};

use super::fault::{INSTANCES, Link, Server, Slot};
use crate::{
    client::{Address, Client},
    database::Role,
    proxy::Proxy,
    service::{Kind, Service},
    stack::Stack,
};

/// How long a fault waits for an instance, or for connections, that another fault works on.
const TURN_MAX: Duration = Duration::from_secs(10);
/// How long an instance may take until it listens: its database may be away meanwhile.
const LISTEN_MAX: Duration = Duration::from_mins(1);
/// How many lines of an instance's log a report shows.
const LOG_LINES_SHOWN: usize = 15;

/// The instances of a round, each behind lines of its own to both servers.
///
/// A fault holds the turn of what it works on. Who needs two places takes the lower number first, so no
/// two faults wait for each other, and none waits for long.
pub(super) struct Fleet {
    pub(super) stack: Stack,
    pub(super) posts: Vec<Post>,
    pub(super) partitions: i32,
    /// The settings of all services in this round.
    own: Vec<(&'static str, String)>,
    servers: [Mutex<()>; 2],
    grants: Mutex<()>,
    notes: SyncMutex<Notes>,
    began: Instant,
}

/// What happened in a round.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    /// How often each kind of fault happened.
    pub(super) done: BTreeMap<String, u32>,
    /// How often one did not, because its instance was under another fault, or never came to the step.
    pub(super) skipped: BTreeMap<String, u32>,
    pub(super) wrongs: Vec<String>,
    pub(super) timeline: Vec<String>,
}

/// An instance's place: who works there changes with each restart.
pub(super) struct Post {
    pub(super) slot: Slot,
    database: Line,
    broker: Line,
    /// Where the api of this place listens.
    address: Address,
    own: Vec<(String, String)>,
    state: Mutex<State>,
}

/// An instance's connections to one server.
pub(super) struct Line {
    pub(super) proxy: Proxy,
    turn: Mutex<()>,
}

/// Who works at a place.
#[derive(Default)]
pub(super) struct State {
    service: Option<Service>,
    /// The step at which it is to crash.
    armed: Option<&'static str>,
}

impl Fleet {
    /// Places for two instances of each service, at which nobody works yet.
    pub(super) async fn new(
        stack: Stack,
        partitions: i32,
        own: Vec<(&'static str, String)>,
    ) -> Self {
        let mut posts = Vec::new();
        for kind in Kind::ALL {
            for number in 0..INSTANCES {
                posts.push(Post::new(&stack, Slot { kind, number }, &own).await);
            }
        }
        Self {
            stack,
            posts,
            partitions,
            own,
            servers: Default::default(),
            grants: Mutex::default(),
            notes: SyncMutex::default(),
            began: Instant::now(),
        }
    }

    pub(super) fn post(&self, slot: Slot) -> &Post {
        let found = self.posts.iter().find(|post| post.slot == slot);
        found.expect("a post for every slot")
    }

    /// Starts one more worker, which has no place of its own, with the round's settings and these.
    pub(super) fn extra_worker(&self, own: &[(&str, &str)]) -> Service {
        let usual = self.own.iter().map(|(name, value)| (*name, &**value));
        let all: Vec<_> = usual.chain(own.iter().copied()).collect();
        self.stack.spawn(Kind::Worker, &all)
    }

    /// Starts whoever is missing, and waits until all are ready.
    pub(super) async fn muster(&self) {
        for post in &self.posts {
            let mut state = post.state.lock().await;
            if state.working().await.is_none() {
                post.launch(&self.stack, &mut state, None).await;
            }
        }
        for post in &self.posts {
            let service = post.state.lock().await.service.clone();
            service.expect("everybody was started").ready().await;
        }
    }

    /// A client of each api, with the same key.
    pub(super) async fn apis(&self) -> Vec<Client> {
        let (_, key) = self.stack.make_key("read,write,operate").await;
        let apis = self.posts.iter().filter(|post| post.slot.kind == Kind::Api);
        apis.map(|post| {
            let book = self.stack.book.clone();
            Client::new(post.address.clone(), Some(key.clone()), book)
        })
        .collect()
    }

    /// Brings back whoever has crashed at its step; who ended otherwise has done wrong.
    pub(super) async fn bring_back_the_crashed(&self) {
        for post in &self.posts {
            let Ok(mut state) = post.state.try_lock() else {
                continue;
            };
            if state.service.is_some() && state.working().await.is_none() {
                self.bury(&mut state).await;
                post.launch(&self.stack, &mut state, None).await;
            }
        }
    }

    /// Replaces whoever still is to crash at a step, and did not come to it.
    pub(super) async fn disarm(&self) {
        for post in &self.posts {
            let mut state = post.state.lock().await;
            if state.armed.is_none() {
                continue;
            }
            match state.working().await.cloned() {
                Some(service) => {
                    service.kill().await;
                    self.called_off(&mut state, &service).await;
                }
                None => self.bury(&mut state).await,
            }
        }
    }

    /// Nobody works there any more, by our own doing; a crash that was still to come does not. Whether it
    /// came first is the answer.
    pub(super) async fn called_off(&self, state: &mut State, service: &Service) -> bool {
        state.service = None;
        let Some(point) = state.armed.take() else {
            return false;
        };
        let crashed = service.crashed_at(point).await;
        self.count(&format!("crash at {point}"), crashed);
        crashed
    }

    /// Writes down the end of an instance that nobody killed.
    pub(super) async fn bury(&self, state: &mut State) {
        let Some(service) = state.service.take() else {
            return;
        };
        let status = service.ended().await;
        if let Some(point) = state.armed.take()
            && service.crashed_at(point).await
        {
            self.tell(&format!("{} crashed at {point}", service.label()));
            self.count(&format!("crash at {point}"), true);
            return;
        }
        let log = service.log();
        let shown = log.len().saturating_sub(LOG_LINES_SHOWN);
        let (label, last) = (service.label(), log[shown..].join("\n"));
        self.wrong(format!("{label} ended by itself ({status}):\n{last}"));
    }

    pub(super) fn server_turn(&self, server: Server) -> Option<MutexGuard<'_, ()>> {
        let index = usize::from(server == Server::Kafka);
        self.servers[index].try_lock().ok()
    }

    pub(super) fn grants_turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.grants.try_lock().ok()
    }

    pub(super) fn line(&self, link: Link) -> &Line {
        let post = self.post(link.slot);
        match link.server {
            Server::Postgres => &post.database,
            Server::Kafka => &post.broker,
        }
    }

    pub(super) fn count(&self, fault: &str, done: bool) {
        let mut notes = self.lock();
        let Notes {
            done: happened,
            skipped,
            ..
        } = &mut *notes;
        let counts = if done { happened } else { skipped };
        *counts.entry(fault.to_owned()).or_default() += 1;
    }

    pub(super) fn wrong(&self, wrong: String) {
        self.tell(&format!("WRONG: {wrong}"));
        self.lock().wrongs.push(wrong);
    }

    /// Adds a line to the round's story.
    pub(super) fn tell(&self, line: &str) {
        let at = self.began.elapsed().as_secs_f64();
        self.lock().timeline.push(format!("{at:7.1} s  {line}"));
    }

    pub(super) fn notes(&self) -> Notes {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Post {
    async fn new(stack: &Stack, slot: Slot, own: &[(&str, String)]) -> Self {
        let (kafka, database) = (&stack.kafka, &stack.database);
        let database = Line::new(Proxy::start(database.server_address()).await);
        let broker = kafka.brokers().to_owned();
        let broker = Line::new(Proxy::start_for_kafka(broker, kafka.advertised()).await);
        let role: Role = slot.kind.role();
        let url = stack.database.url(role, Some(database.proxy.address()));
        let mut all = vec![
            ("DATABASE_URL".to_owned(), url),
            (
                "KAFKA_BROKERS".to_owned(),
                broker.proxy.address().to_string(),
            ),
        ];
        all.extend(
            own.iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        Self {
            slot,
            database,
            broker,
            address: Address::default(),
            own: all,
            state: Mutex::default(),
        }
    }

    /// Waits for the right to do something to whoever works here; not for long.
    pub(super) async fn turn(&self) -> Option<MutexGuard<'_, State>> {
        timeout(TURN_MAX, self.state.lock()).await.ok()
    }

    /// Starts an instance here, which crashes at a pass of a step if one is named, and waits until it
    /// listens or has crashed.
    pub(super) async fn launch(
        &self,
        stack: &Stack,
        state: &mut State,
        crash: Option<(&'static str, u64)>,
    ) {
        let point = crash.map(|(point, pass)| format!("{point}:{pass}"));
        let mut own: Vec<_> = self.own.iter().map(|(k, v)| (&**k, &**v)).collect();
        own.extend(point.as_deref().map(|point| ("FAULT_POINT", point)));
        let service = stack.spawn(self.slot.kind, &own);
        state.armed = crash.map(|(point, _)| point);
        let server = match self.slot.kind {
            Kind::Api => "api",
            _ => "admin",
        };
        let deadline = Instant::now() + LISTEN_MAX;
        while service.runs().await && Instant::now() < deadline {
            // The admin server's address is asked for by `ready`, the api's by its clients.
            if let Some(address) = service.listening(server) {
                self.address.set(address);
                break;
            }
            sleep(Duration::from_millis(25)).await;
        }
        state.service = Some(service);
    }
}

impl Line {
    fn new(proxy: Proxy) -> Self {
        Self {
            proxy,
            turn: Mutex::default(),
        }
    }

    /// Waits for the right to spoil these connections; not for long.
    pub(super) async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        timeout(TURN_MAX, self.turn.lock()).await.ok()
    }
}

impl State {
    /// Whoever works here, if somebody does.
    pub(super) async fn working(&self) -> Option<&Service> {
        let service = self.service.as_ref()?;
        service.runs().await.then_some(service)
    }

    /// Nobody works here any more, and nobody was to crash.
    pub(super) fn clear(&mut self) {
        self.service = None;
    }
}
