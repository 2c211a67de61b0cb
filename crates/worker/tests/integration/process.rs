//! The real binary: how it starts, what it says, how it ends.

use std::process::{Output, Stdio};

use crate::support::{kafka::*, proxy::Proxy, *};
use serde_json::Value;
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

/// A worker's process, ended with the test.
struct Process {
    child: Child,
    admin: String,
    log: Log,
}

/// What a process says, line by line. It is read all the time: a process whose pipe is full waits.
struct Log(UnboundedReceiver<String>);

impl Log {
    fn of(output: ChildStdout) -> Self {
        let (sender, receiver) = unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Some(line) = lines.next_line().await.unwrap() {
                // A test that is over reads no more.
                let _ = sender.send(line);
            }
        });
        Self(receiver)
    }

    /// The next line; none if the process has closed its output.
    async fn next(&mut self) -> Option<String> {
        let line = timeout(PATIENCE, self.0.recv()).await;
        line.expect("the process says something, or ends")
    }

    /// The line that says where the admin server listens; those before it are dropped.
    async fn admin_address(&mut self) -> String {
        loop {
            let line = self.next().await.expect("it says where it listens");
            if line.contains("\"listening\"") {
                let line: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(line["server"], "admin");
                return line["addr"].as_str().unwrap().to_owned();
            }
        }
    }

    /// Everything else that it says, up to its end.
    async fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        lines
    }
}

/// The errors that the worker itself tells, not those of the Kafka client, which may well lose a connection
/// to a busy broker.
fn errors(log: &[String]) -> Vec<Value> {
    let lines = log.iter().map(|line| serde_json::from_str(line).unwrap());
    let is_own = |line: &Value| {
        let target = line["target"].as_str().unwrap_or_default();
        line["level"] == "ERROR" && target.starts_with("worker")
    };
    lines.filter(is_own).collect()
}

impl Process {
    async fn start(stream: &Stream, database_url: String) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command
            .env("DATABASE_URL", database_url)
            .env("DATABASE_ACQUIRE_TIMEOUT_MS", "1000")
            .env("KAFKA_BROKERS", brokers())
            .env("TRANSACTIONS_TOPIC", &stream.topic)
            .env("RESULTS_TOPIC", RESULTS)
            .env("CONSUMER_GROUP", &stream.group)
            .env("ADMIN_BIND_ADDR", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut log = Log::of(child.stdout.take().unwrap());
        let admin = format!("http://{}", log.admin_address().await);
        Self { child, admin, log }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("{}{path}", self.admin)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn is_ready(&self) -> bool {
        self.get("/ready").await.0 == 200
    }

    /// Why it is not ready, by component.
    async fn reasons(&self) -> Value {
        let body: Value = serde_json::from_str(&self.get("/ready").await.1).unwrap();
        body["reasons"].clone()
    }

    /// Ends it as an operator does; answers its exit code and the rest of its log.
    async fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        let pid = self.child.id().unwrap().to_string();
        // The shell's own `kill`: not every machine has the program.
        let told = Command::new("sh")
            .args(["-c", "kill -s TERM \"$0\"", &pid])
            .status();
        assert!(told.await.unwrap().success());
        let rest = self.log.rest().await;
        let ended = timeout(PATIENCE, self.child.wait()).await;
        (ended.expect("it ends").unwrap().code(), rest)
    }
}

fn url(pool: &PgPool, host: &str, port: u16) -> String {
    let options = pool.connect_options();
    let database = options.get_database().unwrap();
    let user = options.get_username();
    let password = std::env::var("DATABASE_URL")
        .ok()
        .and_then(|url| {
            Some(
                url.split_once("//")?
                    .1
                    .split_once('@')?
                    .0
                    .split_once(':')?
                    .1
                    .to_owned(),
            )
        })
        .map_or_else(String::new, |password| format!(":{password}"));
    format!("postgres://{user}{password}@{host}:{port}/{database}")
}

fn direct_url(pool: &PgPool) -> String {
    let options = pool.connect_options();
    url(pool, options.get_host(), options.get_port())
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn it_posts_says_so_in_its_metrics_and_ends_cleanly(pool: PgPool) {
    let stream = Stream::new(2).await;
    let account = account(&pool, 0).await;
    stream
        .publish(0, &accept(&pool, account, CREDIT, 250).await)
        .await;
    stream
        .publish(0, &accept(&pool, account, DEBIT, 999).await)
        .await;
    let process = Process::start(&stream, direct_url(&pool)).await;
    eventually("posted", async || balance(&pool, account).await == (250, 1)).await;
    eventually("ready", async || process.is_ready().await).await;
    assert_eq!(process.get("/health").await.0, 200);
    let expected = [
        r#"transactions_processed_total{type="CREDIT",currency="EUR"} 1"#,
        r#"transaction_amount_cents_total{type="CREDIT",currency="EUR"} 250"#,
        r#"transactions_failed_total{type="DEBIT",currency="EUR",reason="insufficient_funds"} 1"#,
        r#"events_consumed_total{type="transaction.created",status="applied"} 1"#,
        r#"events_consumed_total{type="transaction.created",status="rejected"} 1"#,
        "event_end_to_end_latency_seconds_count 2",
        "# HELP worker_slice_events ",
        "worker_processing_duration_seconds_count ",
    ];
    eventually("counted", async || {
        let scrape = process.get("/metrics").await.1;
        expected.iter().all(|line| scrape.contains(line))
    })
    .await;

    let (code, log) = process.terminate().await;
    assert_eq!(code, Some(0));
    assert_eq!(errors(&log), [Value::Null; 0]);
    assert_eq!(stream.committed(0).await, Some(2));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn it_gives_up_what_keeps_failing_and_goes_on_with_the_account(pool: PgPool) {
    let stream = Stream::new(1).await;
    let (sick, sound) = (account(&pool, 0).await, account(&pool, 0).await);
    parked::poison(&pool, 66).await;
    let bad = accept(&pool, sick, CREDIT, 66).await;
    let behind = accept(&pool, sick, CREDIT, 1).await;
    let other = accept(&pool, sound, CREDIT, 1).await;
    for event in [&bad, &behind, &other] {
        stream.publish(0, event).await;
    }
    let process = Process::start(&stream, direct_url(&pool)).await;
    eventually("others go on", async || {
        balance(&pool, sound).await == (1, 1)
    })
    .await;
    eventually("it is given up", async || {
        balance(&pool, sick).await == (1, 1)
    })
    .await;
    let dead = ("PROCESSING".to_owned(), Some("dead_lettered".to_owned()));
    assert_eq!(status(&pool, &bad).await, dead);
    let expected = [
        r#"events_consumed_total{type="transaction.created",status="parked"} 2"#,
        r#"events_consumed_total{type="transaction.created",status="applied"} 2"#,
        r#"worker_retries_total{type="transaction.created"} 5"#,
        r#"dlq_messages_total{class="retries_exhausted"} 1"#,
        "# HELP worker_parked_events ",
    ];
    eventually("counted", async || {
        let scrape = process.get("/metrics").await.1;
        expected.iter().all(|line| scrape.contains(line))
    })
    .await;
    assert!(process.is_ready().await);
    let (code, log) = process.terminate().await;
    assert_eq!(code, Some(0));
    let letter: uuid::Uuid = sqlx::query_scalar("SELECT id FROM dead_letters")
        .fetch_one(&pool)
        .await
        .unwrap();
    let letter = letter.to_string();
    assert!(log.iter().any(|line| line.contains(&letter)), "{log:#?}");
    assert_eq!(stream.committed(0).await, Some(3));
    parked::assert_queues_are_whole(&pool).await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn it_starts_before_its_database_and_its_topic_are_there(pool: PgPool) {
    let stream = Stream::without_topic();
    let mut proxy = Proxy::to(&pool).await;
    proxy.cut();
    let way = proxy.options(&pool);
    let process = Process::start(&stream, url(&pool, way.get_host(), way.get_port())).await;
    let lacks_topic = |reasons: &Value| {
        let reason = reasons["broker"].as_str();
        reason.is_some_and(|reason| reason.contains(&stream.topic))
    };
    eventually("it says that both are missing", async || {
        let reasons = process.reasons().await;
        reasons["database"].is_string()
            && reasons["database"] != "starting"
            && lacks_topic(&reasons)
    })
    .await;
    assert_eq!(process.get("/health").await.0, 200);

    proxy.mend().await;
    eventually("only the topic is missing", async || {
        let reasons = process.reasons().await;
        reasons.get("database").is_none() && lacks_topic(&reasons)
    })
    .await;

    stream.create_topic(1).await;
    let account = account(&pool, 0).await;
    eventually("ready by itself", async || process.is_ready().await).await;
    stream
        .publish(0, &accept(&pool, account, CREDIT, 5).await)
        .await;
    eventually("posted", async || balance(&pool, account).await == (5, 1)).await;
    assert_eq!(process.terminate().await.0, Some(0));
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn told_to_end_in_a_slow_attempt_it_still_leaves_its_group(pool: PgPool) {
    let stream = Stream::new(1).await;
    let account = account(&pool, 0).await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM accounts FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    stream
        .publish(0, &accept(&pool, account, CREDIT, 5).await)
        .await;
    let process = Process::start(&stream, direct_url(&pool)).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND application_name = 'worker' AND wait_event_type = 'Lock'";
    eventually("an attempt waits for a lock", async || {
        count(&pool, waiting).await == 1
    })
    .await;
    assert_eq!(stream.members().await, 1);
    let (code, log) = process.terminate().await;
    assert_eq!(code, Some(0));
    let deadline = log.iter().find(|line| line.contains("at the deadline"));
    assert_eq!(deadline, None);
    assert_eq!(stream.members().await, 0);
    holder.rollback().await.unwrap();
    assert_eq!(stream.committed(0).await, None);
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn at_a_record_that_can_never_be_applied_it_says_so_and_goes_on(pool: PgPool) {
    let stream = Stream::new(1).await;
    let offset = stream.publish_garbage(0).await;
    let process = Process::start(&stream, direct_url(&pool)).await;
    let expected = [
        r#"dlq_messages_total{class="undecodable"} 1"#,
        r#"events_consumed_total{type="transaction.created",status="dead"} 1"#,
        "worker_standing_still 0",
    ];
    eventually("it counts a dead letter", async || {
        let scrape = process.get("/metrics").await.1;
        expected.iter().all(|line| scrape.contains(line))
    })
    .await;
    eventually("it is ready", async || process.is_ready().await).await;
    let (code, log) = process.terminate().await;
    assert_eq!(code, Some(0));
    let errors = errors(&log);
    let error = errors.first().expect("an error is logged");
    assert_eq!(
        (&error["partition"], &error["offset"]),
        (&0.into(), &offset.into())
    );
    assert!(
        error["reason"].as_str().unwrap().contains("ce_specversion"),
        "{error}"
    );
    assert!(error["dead_letter_id"].is_string(), "{error}");
    assert_eq!(stream.committed(0).await, Some(1));
}

#[test]
fn a_bad_setting_is_one_line_and_exit_code_2() {
    let Output {
        status,
        stdout,
        stderr,
    } = std::process::Command::new(env!("CARGO_BIN_EXE_worker"))
        .env("SLICE_EVENTS_MAX", "0")
        .output()
        .unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.starts_with("SLICE_EVENTS_MAX "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
    assert!(stdout.is_empty());
}

#[test]
fn every_setting_is_in_the_help_with_its_variable() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_worker"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for variable in [
        "DATABASE_URL",
        "DATABASE_CONNECTIONS_MAX",
        "WORKER_ISOLATION",
        "SLICE_EVENTS_MAX",
        "KAFKA_BROKERS",
        "TRANSACTIONS_TOPIC",
        "RESULTS_TOPIC",
        "CONSUMER_GROUP",
        "PROCESSED_EVENTS_RETENTION",
        "ADMIN_BIND_ADDR",
        "LOG_FORMAT",
        "SHUTDOWN_GRACE_MS",
    ] {
        assert!(help.contains(&format!("[env: {variable}")), "{variable}");
    }
    assert!(
        !help.contains("[env: DATABASE_URL="),
        "the URL may hold a password"
    );
}
