//! `docs/events.md` shows events as they are.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Debug;

use common::types::{
    DeadLetterClass, DeadLetterStage, EventEnvelope, EventType, FailureReason, TransactionCreated,
    TransactionFailed, TransactionProcessed,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

const DOC: &str = include_str!("../../../docs/events.md");

/// The JSON example below an event's heading.
fn example(event_type: EventType) -> Value {
    let heading = format!("## `{}`", event_type.as_str());
    let section = DOC
        .split(&heading)
        .nth(1)
        .unwrap_or_else(|| panic!("{heading} is missing"));
    let json = section
        .split("```json")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    serde_json::from_str(json.expect("an example")).expect("valid JSON")
}

/// The example has exactly the fields of the type, in its meaning.
fn assert_example<T: Serialize + DeserializeOwned + Debug>(event_type: EventType) {
    let shown = example(event_type);
    let read: T = serde_json::from_value(shown.clone()).expect("the example is such an event");
    assert_eq!(serde_json::to_value(&read).expect("serializable"), shown);
}

#[test]
fn the_examples_are_events() {
    assert_example::<TransactionCreated>(EventType::TransactionCreated);
    assert_example::<TransactionProcessed>(EventType::TransactionProcessed);
    assert_example::<TransactionFailed>(EventType::TransactionFailed);
}

#[test]
fn every_failure_reason_is_explained() {
    let dead_lettered = FailureReason::DeadLettered.as_str();
    for reason in FailureReason::NAMES {
        // Nothing failed with a dead letter yet, so no event tells of it.
        let of_an_event = *reason != dead_lettered;
        assert_eq!(is_explained(reason), of_an_event, "{reason}");
    }
}

#[test]
fn every_class_and_stage_of_dead_letters_is_explained() {
    for name in [DeadLetterClass::NAMES, DeadLetterStage::NAMES].concat() {
        assert!(is_explained(name), "{name}");
    }
}

/// Whether a table has a row for a name.
fn is_explained(name: &str) -> bool {
    DOC.contains(&format!("\n| `{name}` |"))
}

#[test]
fn the_headers_shown_are_those_sent() {
    let cell = |name: &str| {
        let row = DOC
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")));
        let example = row.and_then(|row| row.split('`').nth(3));
        example
            .unwrap_or_else(|| panic!("{name} is missing"))
            .to_owned()
    };
    let sent = EventEnvelope {
        id: common::types::EventId(cell("ce_id").parse().expect("a UUID")),
        event_type: cell("ce_type").parse().expect("an event type"),
        time: cell("ce_time").parse().expect("a time"),
        account_id: common::types::AccountId::new(),
    };
    for (name, value) in sent.headers() {
        assert_eq!(value, cell(name), "{name}");
    }
}
