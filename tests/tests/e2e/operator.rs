//! What an operator does: looks at dead letters, replays and discards them; and what a database does
//! that refuses what it should not.

use std::collections::HashSet;

use e2e::{Answer, Client, Record, Stack, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// From now on, entries of chosen accounts can be refused; so far all are taken.
pub(crate) async fn prepare_poison(stack: &Stack) {
    run(
        stack,
        "CREATE TABLE poisoned (account_id uuid PRIMARY KEY, amount_cents bigint);
         GRANT SELECT ON poisoned TO postonce_worker;
         CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF EXISTS (SELECT FROM poisoned p WHERE p.account_id = NEW.account_id
                           AND coalesce(p.amount_cents, NEW.amount_cents) = NEW.amount_cents) THEN
                 RAISE EXCEPTION 'poisoned: %', NEW.transaction_id;
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse_poison BEFORE INSERT ON ledger_entries
                FOR EACH ROW EXECUTE FUNCTION refuse_poison()",
    )
    .await;
}

/// Entries of this account are refused, or those of one amount.
pub(crate) async fn poison(stack: &Stack, account: Uuid, amount_cents: Option<i64>) {
    sqlx::query("INSERT INTO poisoned VALUES ($1, $2)")
        .bind(account)
        .bind(amount_cents)
        .execute(stack.database.superuser())
        .await
        .expect("no poison");
}

/// All entries are taken again.
pub(crate) async fn heal(stack: &Stack) {
    run(stack, "DELETE FROM poisoned").await;
}

/// Runs statements as the superuser.
pub(crate) async fn run(stack: &Stack, statements: &'static str) {
    let ran = sqlx::raw_sql(statements).execute(stack.database.superuser());
    ran.await.expect(statements);
}

/// How often the head of the only queue was tried.
pub(crate) async fn attempts(stack: &Stack) -> i64 {
    let head = "SELECT coalesce(max(attempts), 0)::bigint FROM parked_events";
    stack.database.count(head).await
}

/// Waits until so many letters answer a query, and hands them over, the newest first.
pub(crate) async fn letters(client: &Client, query: &str, count: usize) -> Vec<Value> {
    let path = format!("/v1/dead-letters?limit=200&{query}");
    eventually(&format!("{count} dead letters: {query}"), async || {
        let page = client.get(&path).await.expect(200).body;
        let found = page["data"].as_array().cloned().unwrap_or_default();
        (found.len() == count).then_some(found)
    })
    .await
}

/// Waits for the only dead letter of an account that waits for somebody.
pub(crate) async fn letter_of(client: &Client, account: Uuid) -> Value {
    let query = format!("state=DEAD&account_id={account}");
    letters(client, &query, 1).await.remove(0)
}

/// One letter with everything that it held.
pub(crate) async fn inspect(client: &Client, letter: &Value) -> Value {
    let path = format!("/v1/dead-letters/{}", id(letter));
    client.get(&path).await.expect(200).body
}

/// Replays or discards a letter.
pub(crate) async fn act(client: &Client, letter: &Value, action: &str) -> Answer {
    let path = format!("/v1/dead-letters/{}/{action}", id(letter));
    post(client, &path, &json!({ "reason": "a test" })).await
}

/// Posts a body.
pub(crate) async fn post(client: &Client, path: &str, body: &Value) -> Answer {
    let request = client.request(Method::POST, path).json(body);
    client.send(request).await.expect("the connection broke")
}

/// Waits until a letter's deaths are on the dead letter topic, and hands them over in their order. Records
/// leave at least once, and of each death the first counts.
pub(crate) async fn announced(stack: &Stack, letter: &Value, deaths: usize) -> Vec<Record> {
    let (what, id) = (format!("{deaths} deaths of {letter}"), id(letter));
    eventually(&what, async || {
        let mut records = stack.kafka.read(&stack.dead_letters_topic);
        let mut seen = HashSet::new();
        records.retain(|record| {
            let death = record.header("dlq.replay_count").to_owned();
            record.header("dlq.id") == id && seen.insert(death)
        });
        (records.len() == deaths).then_some(records)
    })
    .await
}

/// Holds a record of the dead letter topic to the record that died: key, value and headers untouched,
/// and behind them what is told of its death.
pub(crate) fn assert_is_letter_of(record: &Record, original: &Record, letter: &Value) {
    assert_eq!(record.key, original.key);
    assert_eq!(record.value, original.value);
    let (headers, told) = record.headers.split_at(original.headers.len());
    assert_eq!(headers, original.headers);
    assert!(told.iter().all(|(name, _)| name.starts_with("dlq.")));
    let partition = original.partition.to_string();
    let offset = original.offset.to_string();
    let attempts = letter["attempts"].to_string();
    for (name, value) in [
        ("dlq.id", id(letter)),
        ("dlq.original.topic", text(letter, "source_topic")),
        ("dlq.original.partition", &partition),
        ("dlq.original.offset", &offset),
        ("dlq.error.class", text(letter, "class")),
        ("dlq.error.stage", text(letter, "stage")),
        ("dlq.error.message", text(letter, "message")),
        ("dlq.attempts", &attempts),
    ] {
        assert_eq!(record.header(name), value, "{name} of {record:?}");
    }
    assert!(!record.header("dlq.original.timestamp").is_empty());
}

/// What a transaction says of itself: status and reason.
pub(crate) async fn status(client: &Client, transaction: Uuid) -> (String, Option<String>) {
    let path = format!("/v1/transactions/{transaction}");
    let found = client.get(&path).await.expect(200).body;
    let reason = found["failure_reason"].as_str().map(str::to_owned);
    (text(&found, "status").to_owned(), reason)
}

/// Waits until a transaction says this.
pub(crate) async fn becomes(client: &Client, transaction: Uuid, wanted: (&str, Option<&str>)) {
    eventually(&format!("{transaction} is {wanted:?}"), async || {
        let (status, reason) = status(client, transaction).await;
        ((status.as_str(), reason.as_deref()) == wanted).then_some(())
    })
    .await;
}

/// A letter's id.
pub(crate) fn id(letter: &Value) -> &str {
    text(letter, "id")
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of[field].as_str().unwrap_or_default()
}
