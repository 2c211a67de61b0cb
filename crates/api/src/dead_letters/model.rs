use chrono::{DateTime, Utc};
use common::types::{
    AccountId, Base64, DeadLetterClass, DeadLetterStage, DeadLetterState, EventId, HeaderValue,
    TransactionId,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::schemas;

/// A record that was given up, without what it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DeadLetter {
    /// A UUID version 7; also `dlq.id` on the dead letter topic.
    #[schema(value_type = uuid::Uuid)]
    pub(super) id: DeadLetterId,
    /// The account that the record claims; null where it claims none that can be read.
    #[schema(required, value_type = Option<uuid::Uuid>)]
    pub(super) account_id: Option<AccountId>,
    /// The event's id that the record claims (`ce_id`); null where it claims none that can be read.
    #[schema(required, value_type = Option<uuid::Uuid>)]
    pub(super) event_id: Option<EventId>,
    /// The transaction that waits for this letter, or that was rejected; null where the record is not
    /// known to be a transaction's own event: undecodable, of an unknown schema version, forged, or
    /// a result.
    #[schema(required, value_type = Option<uuid::Uuid>)]
    pub(super) transaction_id: Option<TransactionId>,
    /// What became of it.
    #[schema(value_type = schemas::DeadLetterState)]
    pub(super) state: DeadLetterState,
    /// Why it was given up.
    #[schema(value_type = schemas::DeadLetterClass)]
    pub(super) class: DeadLetterClass,
    /// Where it failed.
    #[schema(value_type = schemas::DeadLetterStage)]
    pub(super) stage: DeadLetterStage,
    /// How it failed the last time.
    pub(super) message: String,
    /// How often it was tried before it was given up.
    #[schema(minimum = 0)]
    pub(super) attempts: i32,
    /// How often it died again behind a replay.
    #[schema(minimum = 0)]
    pub(super) replay_count: i32,
    /// The topic that it was on, or was to go to; a replay sends it there.
    pub(super) source_topic: String,
    /// Null where the broker never took it.
    #[schema(required)]
    pub(super) source_partition: Option<i32>,
    /// Null where the broker never took it.
    #[schema(required)]
    pub(super) source_offset: Option<i64>,
    /// The record's own timestamp.
    #[schema(required)]
    pub(super) recorded_at: Option<DateTime<Utc>>,
    /// When it failed for the first time; null where it was given up at once.
    #[schema(required)]
    pub(super) first_failed_at: Option<DateTime<Utc>>,
    /// When it was given up the last time.
    pub(super) dead_at: DateTime<Utc>,
}

/// Names a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub(crate) struct DeadLetterId(pub(crate) uuid::Uuid);

/// A dead letter with what it held, byte for byte, and what was done to it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterDetail {
    #[serde(flatten)]
    pub(super) letter: DeadLetter,
    /// The record's key.
    #[schema(required, schema_with = schemas::record_bytes)]
    pub(super) key: Option<RecordBytes>,
    /// The record's value.
    #[schema(required, schema_with = schemas::record_bytes)]
    pub(super) value: Option<RecordBytes>,
    /// The record's headers, in its order.
    pub(super) headers: Vec<DeadLetterHeader>,
    /// What was done to it, the newest first; at most 200.
    pub(super) actions: Vec<DeadLetterAction>,
}

/// Bytes of a record: as text where they are UTF-8, else as base64.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RecordBytes {
    Text(String),
    Base64(Base64),
}

/// A header of a dead letter's record.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterHeader {
    /// Its name, which may stand more than once.
    pub(super) name: String,
    /// Its value.
    #[schema(required, schema_with = schemas::record_bytes)]
    pub(super) value: Option<RecordBytes>,
}

/// What somebody did to a dead letter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterAction {
    /// What.
    #[schema(value_type = schemas::DeadLetterActionName)]
    pub(super) action: String,
    /// Who: the name of the API key.
    pub(super) actor: String,
    /// Why, in the words of whoever did it.
    #[schema(required)]
    pub(super) reason: Option<String>,
    /// The request's name in the service's logs.
    pub(super) request_id: String,
    /// When.
    pub(super) at: DateTime<Utc>,
}

/// A page of dead letters.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it exists for its schema; `Page` is what is sent, and generators stumble over generic names"
)]
pub(crate) struct DeadLetterPage {
    /// The newest first; there may be fewer than the limit although more follow.
    data: Vec<DeadLetter>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl std::fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Vec<u8>> for RecordBytes {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(
            |not_text| Self::Base64(Base64(not_text.into_bytes())),
            Self::Text,
        )
    }
}

impl From<(String, HeaderValue)> for DeadLetterHeader {
    fn from((name, value): (String, HeaderValue)) -> Self {
        let value = match value {
            HeaderValue::Text(text) => Some(RecordBytes::Text(text)),
            // Text with a NUL is stored so, too.
            HeaderValue::Bytes { base64 } => Some(base64.0.into()),
            HeaderValue::None => None,
        };
        Self { name, value }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_are_shown_as_text_where_they_are_one() {
        let table: [(&[u8], _); 4] = [
            (b"{\"a\": 1 }", json!({ "text": "{\"a\": 1 }" })),
            (b"", json!({ "text": "" })),
            (b"a\0b", json!({ "text": "a\u{0}b" })),
            (&[0xff, 0x00], json!({ "base64": "/wA=" })),
        ];
        for (bytes, shown) in table {
            let bytes = RecordBytes::from(bytes.to_vec());
            assert_eq!(serde_json::to_value(bytes).unwrap(), shown);
        }
    }
}
