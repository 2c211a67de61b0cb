use chrono::Utc;
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage, Timestamp};
use serde_json::{Value, json};

use super::*;

struct Record {
    id: EventId,
    event_type: EventType,
    key: AccountId,
    value: Option<Value>,
}

fn record() -> Record {
    let (id, key) = (EventId::new(), AccountId::new());
    let value = json!({
        "schema_version": 1, "transaction_id": id, "account_id": key, "amount_cents": 5,
        "currency": "EUR", "type": "CREDIT", "a_field_of_tomorrow": true,
    });
    Record {
        id,
        event_type: EventType::TransactionCreated,
        key,
        value: Some(value),
    }
}

fn decode(record: &Record) -> Result<Event, Undecodable> {
    let envelope = EventEnvelope {
        id: record.id,
        event_type: record.event_type,
        time: Utc::now(),
        account_id: record.key,
    };
    let mut headers = OwnedHeaders::new();
    for (key, value) in &envelope.headers() {
        headers = headers.insert(Header {
            key,
            value: Some(value),
        });
    }
    let message = OwnedMessage::new(
        record
            .value
            .as_ref()
            .map(|value| value.to_string().into_bytes()),
        Some(record.key.to_string().into_bytes()),
        "transactions".to_owned(),
        Timestamp::NotAvailable,
        3,
        42,
        Some(headers),
    );
    read(&message, 9)
}

fn read(message: &OwnedMessage, epoch: u64) -> Result<Event, Undecodable> {
    match Item::read(message, epoch) {
        Item::Event(event) => Ok(event),
        Item::Unusable(unusable) => Err(unusable.reason),
    }
}

fn with(record: &mut Record, field: &str, value: Value) {
    record.value.as_mut().unwrap()[field] = value;
}

#[test]
fn a_good_record_is_an_event_and_unknown_fields_are_ignored() {
    let record = record();
    let event = decode(&record).unwrap();
    assert_eq!(
        event.place,
        Place {
            partition: 3,
            offset: 42,
            epoch: 9
        }
    );
    assert_eq!(event.id(), record.id);
    assert_eq!(event.transaction.account_id, record.key);
    assert_eq!(event.transaction.amount_cents.get(), 5);
}

#[test]
fn each_unusable_record_says_what_is_wrong() {
    type Spoil = fn(&mut Record);
    let table: [(Spoil, &str); 11] = [
        (
            |r| r.event_type = EventType::TransactionFailed,
            "transaction.failed event does not",
        ),
        (|r| r.value = None, "no value"),
        (|r| r.value = Some(json!("text")), "unreadable"),
        (|r| with(r, "amount_cents", json!(0)), "unreadable"),
        (|r| with(r, "amount_cents", json!("5")), "unreadable"),
        (|r| with(r, "currency", json!("XXX")), "unreadable"),
        (|r| with(r, "type", json!("REFUND")), "unreadable"),
        (
            |r| with(r, "schema_version", json!(2)),
            "schema version 2 is unknown",
        ),
        (
            |r| r.value = Some(json!({ "schema_version": 3 })),
            "schema version 3 is unknown",
        ),
        (|r| r.id = EventId::new(), "is not the id of transaction"),
        (|r| r.key = AccountId::new(), "is not the account"),
    ];
    for (spoil, expected) in table {
        let mut record = record();
        spoil(&mut record);
        let error = decode(&record).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_wrong_with_a_value_is_told_without_the_value() {
    type Spoil = fn(&mut Record);
    let secret = "4111111111111111";
    let table: [(Spoil, &str); 4] = [
        (
            |r| with(r, "amount_cents", json!("4111111111111111")),
            "a value of the wrong kind",
        ),
        (
            |r| with(r, "currency", json!("4111111111111111")),
            "a value of the wrong kind",
        ),
        (
            |r| r.value = Some(json!("4111111111111111")),
            "a value of the wrong kind",
        ),
        (
            |r| r.value = Some(json!({ "schema_version": 1 })),
            "missing field",
        ),
    ];
    for (spoil, expected) in table {
        let mut record = record();
        spoil(&mut record);
        let error = crate::failure::chain(&decode(&record).unwrap_err());
        assert!(
            error.contains(expected) && !error.contains(secret),
            "{error}"
        );
    }
}

#[test]
fn a_record_without_headers_is_no_event() {
    let bare = OwnedMessage::new(
        Some(b"{}".to_vec()),
        None,
        "transactions".to_owned(),
        Timestamp::NotAvailable,
        0,
        0,
        None,
    );
    assert!(matches!(read(&bare, 0), Err(Undecodable::Envelope(_))));
}
