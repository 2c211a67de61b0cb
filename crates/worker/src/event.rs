//! Records of the topic, read into events.

mod columns;
mod item;
mod raw;

pub(crate) use columns::Columns;
use common::types::{
    AccountId, EventEnvelope, EventId, EventType, MalformedEvent, SCHEMA_VERSION,
    TransactionCreated, TransactionId,
};
pub use item::{Item, Unusable};
pub use raw::Raw;
use serde::Deserialize;
use serde_json::error::Category;
use thiserror::Error;

/// Where a record stands on the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The partition's number.
    pub partition: i32,
    /// The record's offset in its partition.
    pub offset: i64,
    /// Which assignment of the partition to this worker brought it: a partition that went and came
    /// back delivers its unfinished records anew.
    pub epoch: u64,
}

/// A `transaction.created` event, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where its record stands.
    pub place: Place,
    /// What it claims; the transaction's row decides whether that is so.
    pub transaction: TransactionCreated,
    /// The record itself.
    pub raw: Raw,
}

/// What is wrong with a JSON text, and where, without any of the text itself: it may hold what does not
/// belong into a log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what} at line {line}, column {column}")]
pub struct Flaw {
    what: String,
    line: usize,
    column: usize,
}

impl Flaw {
    fn of(error: &serde_json::Error) -> Self {
        let told = error.to_string();
        let what = match error.classify() {
            // The name of a field is ours.
            Category::Data if told.starts_with("missing field") => {
                told.split(" at line").next().unwrap_or_default()
            }
            Category::Data => "a value of the wrong kind",
            Category::Syntax => "no JSON",
            Category::Eof => "JSON that ends too early",
            Category::Io => "JSON that could not be read",
        };
        Self {
            what: what.to_owned(),
            line: error.line(),
            column: error.column(),
        }
    }
}

/// Why a record is not an event that could ever be applied.
#[derive(Debug, Error)]
pub enum Undecodable {
    /// Headers or key.
    #[error(transparent)]
    Envelope(#[from] MalformedEvent),
    /// A header's name is not a text.
    #[error("the name of a header is not UTF-8")]
    HeaderName,
    /// An event of ours that does not belong on this topic.
    #[error("a {} event does not belong on this topic", .0.as_str())]
    Misplaced(EventType),
    /// A tombstone.
    #[error("the record has no value")]
    NoValue,
    /// The value is not the JSON that it should be.
    #[error("the value is unreadable: {0}")]
    Value(Flaw),
    /// Written by a newer publisher.
    #[error("schema version {0} is unknown")]
    SchemaVersion(u32),
    /// `ce_id` is not the transaction's id. Taken as it is, the event would close that of another
    /// transaction, which would then never be applied.
    #[error("ce_id {0} is not the id of transaction {1}")]
    ForeignId(EventId, TransactionId),
    /// The key, which decides the order, is not the account's id.
    #[error("the key {0} is not the account {1} of the value")]
    ForeignKey(AccountId, AccountId),
}

impl Event {
    /// The event's id, which is that of its transaction.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.transaction.transaction_id.into()
    }
}

/// Reads what a record claims.
fn transaction(
    headers: &[(&str, Option<&[u8]>)],
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<TransactionCreated, Undecodable> {
    let envelope = EventEnvelope::parse(&headers.iter().copied(), key)?;
    if envelope.event_type != EventType::TransactionCreated {
        return Err(Undecodable::Misplaced(envelope.event_type));
    }
    let value = value.ok_or(Undecodable::NoValue)?;
    let transaction: TransactionCreated =
        serde_json::from_slice(value).map_err(|error| unreadable(value, &error))?;
    if transaction.schema_version != SCHEMA_VERSION {
        return Err(Undecodable::SchemaVersion(transaction.schema_version));
    }
    if envelope.id != transaction.transaction_id.into() {
        return Err(Undecodable::ForeignId(
            envelope.id,
            transaction.transaction_id,
        ));
    }
    if envelope.account_id != transaction.account_id {
        return Err(Undecodable::ForeignKey(
            envelope.account_id,
            transaction.account_id,
        ));
    }
    Ok(transaction)
}

/// A value of an unknown version need not have our fields; then the version is the reason to tell.
fn unreadable(value: &[u8], error: &serde_json::Error) -> Undecodable {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u32,
    }
    match serde_json::from_slice(value) {
        Ok(Versioned { schema_version }) if schema_version != SCHEMA_VERSION => {
            Undecodable::SchemaVersion(schema_version)
        }
        _ => Undecodable::Value(Flaw::of(error)),
    }
}

#[cfg(test)]
mod tests;
