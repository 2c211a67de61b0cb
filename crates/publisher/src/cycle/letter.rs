//! Dead letters and their replays as records.

use chrono::{DateTime, SecondsFormat, Utc};
use common::types::{HeaderValue, RecordHeaders};
use uuid::Uuid;

/// Most characters of an error's text in a header. The whole text stands in the database.
const MESSAGE_CHARS_MAX: usize = 1_024;
/// The same in a letter's last form, for which there is little room.
const BARE_MESSAGE_CHARS_MAX: usize = 128;

/// A dead letter as it stands in the database, but for its headers: those are JSON there.
#[derive(Debug)]
pub(super) struct Letter {
    /// The place of its outbox row among those that were asked about, from 1.
    pub(super) position: i64,
    pub(super) id: Uuid,
    pub(super) source_topic: String,
    pub(super) source_partition: Option<i32>,
    pub(super) source_offset: Option<i64>,
    pub(super) recorded_at: Option<DateTime<Utc>>,
    pub(super) error_class: String,
    pub(super) error_stage: String,
    pub(super) error_message: String,
    pub(super) attempts: i32,
    pub(super) first_failed_at: Option<DateTime<Utc>>,
    pub(super) replay_count: i32,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: String,
}

/// How much of a dead letter is sent. Each form is tried when the one before it does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// All of it.
    Whole,
    /// Its key and its headers.
    NoValue,
    /// What is said about it, and nothing of itself.
    Bare,
}

/// A record made of a dead letter.
#[derive(Debug, PartialEq)]
pub(super) struct LetterRecord<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: RecordHeaders,
}

impl Form {
    /// The next shorter one.
    pub(super) const fn shorter(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::NoValue),
            Self::NoValue => Some(Self::Bare),
            Self::Bare => None,
        }
    }
}

impl Letter {
    /// For the topic of dead letters: the record as it was, and behind its own headers what is
    /// known of its end.
    pub(super) fn to_announce(&self, form: Form) -> Result<LetterRecord<'_>, serde_json::Error> {
        let (mut headers, message_chars_max) = match form {
            Form::Whole | Form::NoValue => (self.original_headers()?, MESSAGE_CHARS_MAX),
            Form::Bare => (RecordHeaders::default(), BARE_MESSAGE_CHARS_MAX),
        };
        headers.0.extend(self.told(message_chars_max));
        if form != Form::Whole {
            headers.0.push(text("dlq.truncated", &true));
        }
        Ok(LetterRecord {
            key: self.key.as_deref().filter(|_| form != Form::Bare),
            value: self.value.as_deref().filter(|_| form == Form::Whole),
            headers,
        })
    }

    /// For the topic it came from: the record as it was, and which letter it is.
    pub(super) fn to_replay(&self) -> Result<LetterRecord<'_>, serde_json::Error> {
        let mut headers = self.original_headers()?;
        headers.0.push(text("dlq.id", &self.id));
        headers.0.push(text("dlq.replay_count", &self.replay_count));
        Ok(LetterRecord {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers,
        })
    }

    fn original_headers(&self) -> Result<RecordHeaders, serde_json::Error> {
        serde_json::from_str(&self.headers)
    }

    /// What is not known has no header.
    fn told(&self, message_chars_max: usize) -> impl Iterator<Item = (String, HeaderValue)> {
        let message: String = self.error_message.chars().take(message_chars_max).collect();
        let partition = self.source_partition;
        let offset = self.source_offset;
        let told = [
            Some(text("dlq.id", &self.id)),
            Some(text("dlq.original.topic", &self.source_topic)),
            partition.map(|partition| text("dlq.original.partition", &partition)),
            offset.map(|offset| text("dlq.original.offset", &offset)),
            self.recorded_at
                .map(|at| text("dlq.original.timestamp", &rfc_3339(at))),
            Some(text("dlq.error.class", &self.error_class)),
            Some(text("dlq.error.message", &message)),
            Some(text("dlq.error.stage", &self.error_stage)),
            Some(text("dlq.attempts", &self.attempts)),
            self.first_failed_at
                .map(|at| text("dlq.first_failed_at", &rfc_3339(at))),
            Some(text("dlq.replay_count", &self.replay_count)),
        ];
        told.into_iter().flatten()
    }
}

fn text(name: &str, value: &impl ToString) -> (String, HeaderValue) {
    (name.to_owned(), HeaderValue::Text(value.to_string()))
}

fn rfc_3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = include_str!("../../../../docs/events.md");

    fn letter() -> Letter {
        Letter {
            position: 1,
            id: "019390a1-9e44-7d10-8c55-0b6f2a1d4e30".parse().unwrap(),
            source_topic: "transactions".to_owned(),
            source_partition: Some(5),
            source_offset: Some(1_042),
            recorded_at: Some("2026-11-21T10:00:00.125Z".parse().unwrap()),
            error_class: "retries_exhausted".to_owned(),
            error_stage: "apply".to_owned(),
            error_message: "numeric field overflow (SQLSTATE 22003)".to_owned(),
            attempts: 6,
            first_failed_at: Some("2026-11-21T10:00:00.140211Z".parse().unwrap()),
            replay_count: 0,
            key: Some(b"key".to_vec()),
            value: Some(b"value".to_vec()),
            headers: r#"[["b",{"base64":"/wA="}],["a","x"],["b",null],["a","x"]]"#.to_owned(),
        }
    }

    fn names(record: &LetterRecord<'_>) -> Vec<String> {
        record
            .headers
            .0
            .iter()
            .map(|(name, _)| name.clone())
            .collect()
    }

    const ORIGINAL: [&str; 4] = ["b", "a", "b", "a"];

    #[test]
    fn a_letter_is_the_record_as_it_was_and_what_is_known_of_it() {
        let letter = letter();
        let record = letter.to_announce(Form::Whole).unwrap();
        assert_eq!(record.key, Some(&b"key"[..]));
        assert_eq!(record.value, Some(&b"value"[..]));
        let (original, told) = record.headers.0.split_at(4);
        assert_eq!(
            original
                .iter()
                .map(|(_, value)| value.bytes())
                .collect::<Vec<_>>(),
            [Some(&b"\xff\x00"[..]), Some(b"x"), None, Some(b"x")]
        );
        assert_eq!(names(&record)[..4], ORIGINAL);
        for (name, value) in told {
            let row = format!(
                "| `{name}` | `{}` |",
                str::from_utf8(value.bytes().unwrap()).unwrap()
            );
            assert!(DOC.contains(&row), "docs/events.md does not show {row}");
        }
        assert_eq!(told.len(), 11);
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let letter = Letter {
            source_partition: None,
            source_offset: None,
            recorded_at: None,
            first_failed_at: None,
            key: None,
            value: None,
            headers: "[]".to_owned(),
            ..letter()
        };
        let record = letter.to_announce(Form::Whole).unwrap();
        assert_eq!((record.key, record.value), (None, None));
        assert_eq!(
            names(&record),
            [
                "dlq.id",
                "dlq.original.topic",
                "dlq.error.class",
                "dlq.error.message",
                "dlq.error.stage",
                "dlq.attempts",
                "dlq.replay_count"
            ]
        );
    }

    #[test]
    fn each_form_is_shorter_than_the_one_before() {
        let letter = letter();
        let no_value = letter.to_announce(Form::Whole.shorter().unwrap()).unwrap();
        assert_eq!((no_value.key, no_value.value), (Some(&b"key"[..]), None));
        assert_eq!(names(&no_value)[..4], ORIGINAL);
        assert_eq!(names(&no_value).last().unwrap(), "dlq.truncated");
        let bare = letter
            .to_announce(Form::NoValue.shorter().unwrap())
            .unwrap();
        assert_eq!((bare.key, bare.value), (None, None));
        assert!(names(&bare).iter().all(|name| name.starts_with("dlq.")));
        assert_eq!(Form::Bare.shorter(), None);
        assert!(DOC.contains("| `dlq.truncated` | `true` |"));
    }

    #[test]
    fn a_replay_is_the_record_as_it_was_and_names_its_letter() {
        let letter = Letter {
            replay_count: 2,
            ..letter()
        };
        let record = letter.to_replay().unwrap();
        assert_eq!(record.key, Some(&b"key"[..]));
        assert_eq!(record.value, Some(&b"value"[..]));
        assert_eq!(names(&record)[..4], ORIGINAL);
        let added = [text("dlq.id", &letter.id), text("dlq.replay_count", &2)];
        assert_eq!(record.headers.0[4..], added);
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let letter = Letter {
            error_message: "é".repeat(5_000),
            ..letter()
        };
        for (form, chars) in [(Form::NoValue, 1_024), (Form::Bare, 128)] {
            let record = letter.to_announce(form).unwrap();
            let cut = text("dlq.error.message", &"é".repeat(chars));
            assert!(record.headers.0.contains(&cut), "{form:?}");
        }
    }
}
