use e2e::{Kind, Settings, run};

/// A service, a variable, and a value that it cannot have.
const BAD: [(Kind, &str, &str); 20] = [
    (Kind::Api, "DATABASE_URL", "nonsense"),
    (Kind::Api, "API_BIND_ADDR", "nowhere"),
    (Kind::Api, "ADMIN_BIND_ADDR", "127.0.0.1"),
    (Kind::Api, "INTAKE_QUEUE_ROWS_MAX", "1"),
    (Kind::Api, "TRANSACTIONS_TOPIC", "no topic"),
    (Kind::Api, "SHUTDOWN_GRACE_MS", "soon"),
    (
        Kind::Publisher,
        "DATABASE_URL",
        "mysql://localhost/postonce",
    ),
    (Kind::Publisher, "KAFKA_BROKERS", "nowhere"),
    (Kind::Publisher, "TOPIC_PARTITIONS", "0"),
    (Kind::Publisher, "TOPICS_CREATE", "perhaps"),
    (Kind::Publisher, "DEAD_LETTERS_TOPIC", "no topic"),
    (Kind::Publisher, "OUTBOX_RETENTION", "forever"),
    (Kind::Publisher, "LOG_FORMAT", "xml"),
    (Kind::Worker, "DATABASE_URL", ""),
    (Kind::Worker, "DATABASE_CONNECTIONS_MAX", "0"),
    (Kind::Worker, "KAFKA_BROKERS", "nowhere"),
    (Kind::Worker, "WORKER_ISOLATION", "chaos"),
    (Kind::Worker, "TRANSACTIONS_TOPIC", "no topic"),
    (Kind::Worker, "RESULTS_TOPIC", ""),
    (Kind::Worker, "ADMIN_BIND_ADDR", "127.0.0.1:notaport"),
];

#[tokio::test]
async fn a_bad_setting_is_one_line_that_names_it_and_no_port_is_bound() {
    for (kind, variable, value) in BAD {
        let any_port = "127.0.0.1:0";
        // The last one of a name wins.
        let settings = [
            ("API_BIND_ADDR", any_port),
            ("ADMIN_BIND_ADDR", any_port),
            (variable, value),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let output = run(kind, &[], &Settings::from(settings)).await;
        let told = String::from_utf8(output.stderr).unwrap();
        let case = format!("{kind:?} {variable}={value:?}: {told:?}");
        assert_eq!(output.status.code(), Some(2), "{case}");
        assert_eq!(told.lines().count(), 1, "{case}");
        assert!(told.starts_with(variable), "{case}");
        assert!(
            output.stdout.is_empty(),
            "a log line, so perhaps a port: {case}"
        );
    }
}

#[tokio::test]
async fn help_names_every_setting_of_the_contract() {
    let of_all = "DATABASE_URL DATABASE_CONNECTIONS_MAX DATABASE_STATEMENT_TIMEOUT_MS \
                  ADMIN_BIND_ADDR LOG_FORMAT LOG_FILTER SHUTDOWN_GRACE_MS TRANSACTIONS_TOPIC";
    let of_kafka = "KAFKA_BROKERS RESULTS_TOPIC DEAD_LETTERS_TOPIC CONSUMER_GROUP";
    let table = [
        (
            Kind::Api,
            [
                of_all,
                "API_BIND_ADDR INTAKE_QUEUE_ROWS_MAX INTAKE_LANES",
                "",
            ],
        ),
        (
            Kind::Publisher,
            [
                of_all,
                of_kafka,
                "TOPIC_PARTITIONS TOPIC_REPLICATION TOPICS_CREATE",
            ],
        ),
        (Kind::Worker, [of_all, of_kafka, "WORKER_ISOLATION"]),
    ];
    for (kind, variables) in table {
        let output = run(kind, &["--help"], &Settings::new()).await;
        assert!(output.status.success(), "{kind:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        for variable in variables.iter().flat_map(|list| list.split_whitespace()) {
            // A variable that may hold a secret is shown without its value, so without `=`.
            let shown = ["=", "]"].map(|end| help.contains(&format!("[env: {variable}{end}")));
            assert!(shown.contains(&true), "{kind:?}: {variable}\n{help}");
        }
    }
}
