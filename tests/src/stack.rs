use std::sync::Mutex;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::{
    audit::Audit,
    book::Book,
    client::{Address, Client},
    database::{Database, Role},
    kafka::{Kafka, fresh_name},
    proxy::Proxy,
    service::{Kind, Service, Settings, run},
};

/// How much of each service's log a failed test prints.
const LOG_LINES_SHOWN: usize = 60;

/// What a test wants different from the usual.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Partitions of each topic; none for the services' default.
    pub partitions: Option<i32>,
    /// Whether the services reach the database and the broker through proxies.
    pub proxies: bool,
    /// Settings of all services.
    pub settings: Vec<(&'static str, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            partitions: Some(2),
            proxies: false,
            settings: Vec::new(),
        }
    }
}

/// What a test has for itself: a database, three topics, a consumer group, and the services that it
/// starts on them.
#[derive(Debug)]
pub struct Stack {
    /// The database.
    pub database: Database,
    /// The broker.
    pub kafka: Kafka,
    /// What was sent and acknowledged.
    pub book: Book,
    /// The topic of accepted transactions.
    pub transactions_topic: String,
    /// The topic of results.
    pub results_topic: String,
    /// The topic of dead letters.
    pub dead_letters_topic: String,
    /// The workers' consumer group.
    pub group: String,
    /// Where the api listens.
    pub api: Address,
    proxies: Option<(Proxy, Proxy)>,
    setup: Setup,
    services: Mutex<Vec<Service>>,
    secrets: Mutex<Vec<String>>,
}

impl Stack {
    /// A stack with an empty, migrated database, on which no service runs yet. Who makes it must
    /// also [`Stack::discard`] it.
    pub async fn create(setup: Setup) -> Self {
        let stack = Self::new(setup).await;
        stack.migrate().await;
        stack
    }

    pub(crate) async fn new(setup: Setup) -> Self {
        let (database, kafka) = (Database::create().await, Kafka::from_env());
        let proxies = if setup.proxies {
            let broker = kafka.brokers().to_owned();
            Some((
                Proxy::start(database.server_address()).await,
                Proxy::start_for_kafka(broker, kafka.advertised()).await,
            ))
        } else {
            None
        };
        Self {
            database,
            kafka,
            book: Book::default(),
            transactions_topic: fresh_name("transactions"),
            results_topic: fresh_name("results"),
            dead_letters_topic: fresh_name("dlq"),
            group: fresh_name("worker"),
            api: Address::default(),
            proxies,
            setup,
            services: Mutex::default(),
            secrets: Mutex::default(),
        }
    }

    pub(crate) async fn migrate(&self) {
        self.operator_runs(&["migrate"]).await;
    }

    /// The proxy in front of the database.
    ///
    /// # Panics
    /// If the setup asked for none.
    #[must_use]
    pub fn database_proxy(&self) -> &Proxy {
        &self.proxies.as_ref().expect("a setup without proxies").0
    }

    /// The proxy in front of the broker.
    ///
    /// # Panics
    /// If the setup asked for none.
    #[must_use]
    pub fn kafka_proxy(&self) -> &Proxy {
        &self.proxies.as_ref().expect("a setup without proxies").1
    }

    /// Runs a command of the api as the database's owner, and hands over what it prints.
    pub async fn operator_runs(&self, arguments: &[&str]) -> String {
        let url = self.database.url(Role::Owner, None);
        let settings = Settings::from([("DATABASE_OWNER_URL".to_owned(), url)]);
        let output = run(Kind::Api, arguments, &settings).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "api {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes an API key; its name is answered with it.
    pub async fn make_key(&self, scopes: &str) -> (String, String) {
        let name = format!("e2e-{}", Uuid::new_v4().simple());
        let arguments = ["keys", "create", "--name", &name, "--scopes", scopes];
        let key = self.operator_runs(&arguments).await;
        assert!(key.starts_with("po_"), "not a key alone: {key}");
        self.secrets.lock().unwrap().push(key.clone());
        (name, key)
    }

    /// A client with a key of its own.
    pub async fn client_with(&self, scopes: &str) -> Client {
        let (_, key) = self.make_key(scopes).await;
        self.client_of(Some(key))
    }

    /// A client that may do everything.
    pub async fn client(&self) -> Client {
        self.client_with("read,write,operate").await
    }

    /// A client with a given key, or with none.
    #[must_use]
    pub fn client_of(&self, key: Option<String>) -> Client {
        Client::new(self.api.clone(), key, self.book.clone())
    }

    /// The settings with which a service is started.
    #[must_use]
    pub fn settings(&self, kind: Kind) -> Settings {
        let (database, broker) = match &self.proxies {
            Some((database, broker)) => (Some(database.address()), broker.address().to_string()),
            None => (None, self.kafka.brokers().to_owned()),
        };
        let partitions = self.setup.partitions;
        let partitions = partitions.map(|count| ("TOPIC_PARTITIONS", count.to_string()));
        let usual = [
            ("DATABASE_URL", self.database.url(kind.role(), database)),
            ("KAFKA_BROKERS", broker),
            ("TRANSACTIONS_TOPIC", self.transactions_topic.clone()),
            ("RESULTS_TOPIC", self.results_topic.clone()),
            ("DEAD_LETTERS_TOPIC", self.dead_letters_topic.clone()),
            ("CONSUMER_GROUP", self.group.clone()),
            ("API_BIND_ADDR", "127.0.0.1:0".to_owned()),
            ("ADMIN_BIND_ADDR", "127.0.0.1:0".to_owned()),
            ("RUST_BACKTRACE", "1".to_owned()),
        ];
        let own = self.setup.settings.iter().cloned();
        usual
            .into_iter()
            .chain(partitions)
            .chain(own)
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Starts a service and waits until it listens; it may not be ready.
    pub async fn launch(&self, kind: Kind) -> Service {
        self.launch_with(kind, &[]).await
    }

    /// The same with settings of its own.
    pub async fn launch_with(&self, kind: Kind, own: &[(&str, &str)]) -> Service {
        let service = self.spawn(kind, own);
        service.address("admin").await;
        if kind == Kind::Api {
            self.api.set(service.address("api").await);
        }
        service
    }

    /// Starts a service with settings of its own, and waits for nothing.
    pub(crate) fn spawn(&self, kind: Kind, own: &[(&str, &str)]) -> Service {
        let mut settings = self.settings(kind);
        settings.extend(own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let service = Service::start(kind, &settings);
        self.services.lock().unwrap().push(service.clone());
        service
    }

    /// Starts a service and waits until it is ready.
    pub async fn start(&self, kind: Kind) -> Service {
        let service = self.launch(kind).await;
        service.ready().await;
        service
    }

    /// Starts one of each service and waits until all are ready.
    pub async fn start_all(&self) -> [Service; 3] {
        let all = Kind::ALL.map(|kind| self.launch(kind));
        let all = join_all(all).await;
        join_all(all.iter().map(Service::ready)).await;
        all.try_into().expect("as many services as kinds")
    }

    /// The services that run.
    pub(crate) async fn running(&self) -> Vec<Service> {
        let services = self.services.lock().unwrap().clone();
        let mut running = Vec::new();
        for service in services {
            if service.runs().await {
                running.push(service);
            }
        }
        running
    }

    /// Waits until every accepted transaction has ended and every event has left, and holds the
    /// books to the promises.
    ///
    /// # Panics
    /// If any is broken; the message says which.
    pub async fn audit(&self) -> Audit {
        Audit::of(self).await
    }

    /// The same where transactions may wait for somebody to replay or discard their events.
    ///
    /// # Panics
    /// If any promise is broken; the message says which.
    pub async fn audit_with_dead_letters(&self) -> Audit {
        Audit::with_dead_letters(self).await
    }

    /// Ends what still runs, as an operator does, and looks at what the services have written.
    ///
    /// # Panics
    /// If a service does not end well, has panicked, or has logged a key.
    pub async fn stop(&self) {
        let services = self.services.lock().unwrap().clone();
        join_all(services.iter().map(async |service| {
            if service.runs().await {
                service.terminate().await;
            }
        }))
        .await;
        for service in &services {
            self.assert_log_clean(service);
        }
    }

    fn assert_log_clean(&self, service: &Service) {
        for line in service.log() {
            assert!(!line.contains("panicked"), "{}: {line}", service.label());
            for secret in self.secrets.lock().unwrap().iter() {
                assert!(!line.contains(secret), "{} logs a key", service.label());
            }
        }
    }

    /// The logs of all services, one after another.
    pub(crate) fn logs(&self) -> String {
        let services = self.services.lock().unwrap();
        let logs = services
            .iter()
            .map(|service| format!("---- {}\n{}\n", service.label(), service.log().join("\n")));
        logs.collect()
    }

    /// Prints the end of each service's log to standard output.
    ///
    /// # Panics
    /// If a thread has panicked over the services.
    pub fn print_logs(&self) {
        for service in self.services.lock().unwrap().iter() {
            let log = service.log();
            let skipped = log.len().saturating_sub(LOG_LINES_SHOWN);
            println!("---- {}, {skipped} lines before", service.label());
            log.iter().skip(skipped).for_each(|line| println!("{line}"));
        }
    }

    /// Kills what still runs, and removes the database and the topics.
    ///
    /// # Panics
    /// If the database cannot be removed.
    pub async fn discard(self) {
        let services = self.services.into_inner().unwrap();
        join_all(services.iter().map(async |service| {
            if service.runs().await {
                service.kill().await;
            }
        }))
        .await;
        self.database.drop().await;
        let topics = [
            &*self.transactions_topic,
            &*self.results_topic,
            &*self.dead_letters_topic,
        ];
        self.kafka.delete_topics(&topics).await;
    }
}
