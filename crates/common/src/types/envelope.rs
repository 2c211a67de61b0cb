//! `CloudEvents` 1.0 in the binary mode of its Kafka protocol binding: attributes are headers
//! `ce_…`, the value is the JSON payload, the key is the account.

use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use thiserror::Error;
use uuid::Uuid;

use super::{AccountId, EventId, EventType};

/// The `ce_source` of every event of ours; with `ce_id` it names an event in the whole world.
const SOURCE: &str = "/postonce";
const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/json";

/// How many headers an event has.
const HEADERS: usize = 6;

/// An event's headers in the order they are sent: name and value.
pub type EventHeaders = [(&'static str, String); HEADERS];

/// An event as it travels, without its value: what the headers and the key say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventEnvelope {
    /// `ce_id`; consumers deduplicate by it.
    pub id: EventId,
    /// `ce_type`.
    pub event_type: EventType,
    /// `ce_time`: when it became true, by the database's clock.
    pub time: DateTime<Utc>,
    /// The record's key: events of one account stay in order.
    pub account_id: AccountId,
}

/// What makes a record unreadable as an event. It can never be applied, however often it is tried.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MalformedEvent {
    /// A header is absent.
    #[error("header {0} is missing")]
    HeaderMissing(&'static str),
    /// A header does not hold what it must.
    #[error("header {0} is unreadable or has an unknown value")]
    HeaderInvalid(&'static str),
    /// The key is not an account's id.
    #[error("the record's key is not an account id")]
    KeyInvalid,
}

impl EventEnvelope {
    /// The headers to send.
    #[must_use]
    pub fn headers(&self) -> EventHeaders {
        [
            ("ce_id", self.id.to_string()),
            ("ce_type", self.event_type.as_str().to_owned()),
            ("ce_source", SOURCE.to_owned()),
            ("ce_specversion", SPEC_VERSION.to_owned()),
            (
                "ce_time",
                self.time.to_rfc3339_opts(SecondsFormat::Micros, true),
            ),
            ("content-type", CONTENT_TYPE.to_owned()),
        ]
    }

    /// Reads a record's headers and key; headers that are not ours are ignored, as `CloudEvents`
    /// asks.
    pub fn parse<'a>(
        headers: &(impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone),
        key: Option<&[u8]>,
    ) -> Result<Self, MalformedEvent> {
        let text = |name: &'static str| header(headers.clone(), name);
        if text("ce_specversion")? != SPEC_VERSION {
            return Err(MalformedEvent::HeaderInvalid("ce_specversion"));
        }
        Ok(Self {
            id: EventId(parsed("ce_id", text("ce_id")?)?),
            event_type: parsed("ce_type", text("ce_type")?)?,
            time: parsed("ce_time", text("ce_time")?)?,
            account_id: key.and_then(account_id).ok_or(MalformedEvent::KeyInvalid)?,
        })
    }
}

fn header<'a>(
    mut headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    name: &'static str,
) -> Result<&'a str, MalformedEvent> {
    let (_, value) = headers
        .find(|(key, _)| *key == name)
        .ok_or(MalformedEvent::HeaderMissing(name))?;
    value
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or(MalformedEvent::HeaderInvalid(name))
}

fn parsed<T: FromStr>(name: &'static str, text: &str) -> Result<T, MalformedEvent> {
    text.parse()
        .map_err(|_| MalformedEvent::HeaderInvalid(name))
}

fn account_id(key: &[u8]) -> Option<AccountId> {
    Uuid::try_parse_ascii(key).ok().map(AccountId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> EventEnvelope {
        EventEnvelope {
            id: EventId::new(),
            event_type: EventType::TransactionCreated,
            time: "2026-11-21T10:00:00.123456Z".parse().unwrap(),
            account_id: AccountId::new(),
        }
    }

    fn parse(headers: &[(&str, String)], key: &[u8]) -> Result<EventEnvelope, MalformedEvent> {
        let pairs = headers
            .iter()
            .map(|(name, value)| (*name, Some(value.as_bytes())));
        EventEnvelope::parse(&pairs, Some(key))
    }

    #[test]
    fn what_is_sent_is_read_back() {
        let sent = envelope();
        assert_eq!(
            parse(&sent.headers(), sent.account_id.to_string().as_bytes()),
            Ok(sent)
        );
    }

    #[test]
    fn each_missing_or_strange_header_is_named() {
        let sent = envelope();
        let key = sent.account_id.to_string();
        for name in ["ce_id", "ce_type", "ce_time", "ce_specversion"] {
            let without: Vec<_> = sent
                .headers()
                .into_iter()
                .filter(|(header, _)| *header != name)
                .collect();
            assert_eq!(
                parse(&without, key.as_bytes()),
                Err(MalformedEvent::HeaderMissing(name))
            );
            let strange = sent.headers().map(|(header, value)| {
                (
                    header,
                    if header == name {
                        "strange".to_owned()
                    } else {
                        value
                    },
                )
            });
            assert_eq!(
                parse(&strange, key.as_bytes()),
                Err(MalformedEvent::HeaderInvalid(name))
            );
        }
    }

    #[test]
    fn a_key_that_is_no_account_is_refused() {
        assert_eq!(
            parse(&envelope().headers(), b"\xff"),
            Err(MalformedEvent::KeyInvalid)
        );
    }
}
