use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use common::types::RecordHeaders;
use rdkafka::message::Headers;

/// Stands for a header whose name cannot be read.
const UNREADABLE: &str = "\u{fffd}";

/// A record's headers, in their order.
pub(super) type HeaderList<'a> = Vec<(&'a str, Option<&'a [u8]>)>;

/// A record as it stood on the topic, kept until it is applied: a dead letter has to show it untouched.
///
/// Key, value and headers share one allocation, and a clone shares it, too.
#[derive(Clone, PartialEq, Eq)]
pub struct Raw {
    /// The key, the value, then the headers: each a name, a length, and a value of that length.
    bytes: Arc<[u8]>,
    key: Option<usize>,
    value: Option<usize>,
    recorded_at_ms: Option<i64>,
}

impl Raw {
    /// Copies a record.
    #[must_use]
    pub fn new(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        recorded_at_ms: Option<i64>,
    ) -> Self {
        let sizes = headers
            .iter()
            .map(|(name, value)| 2 * LENGTH + name.len() + value.map_or(0, <[u8]>::len));
        let [key_len, value_len] = [key, value].map(|bytes| bytes.map_or(0, <[u8]>::len));
        let mut bytes = Vec::with_capacity(key_len + value_len + sizes.sum::<usize>());
        bytes.extend_from_slice(key.unwrap_or_default());
        bytes.extend_from_slice(value.unwrap_or_default());
        for (name, value) in headers {
            put(&mut bytes, Some(name.as_bytes()));
            put(&mut bytes, *value);
        }
        Self {
            bytes: bytes.into(),
            key: key.map(<[u8]>::len),
            value: value.map(<[u8]>::len),
            // What is no time of a clock is none: PostgreSQL would refuse it.
            recorded_at_ms: recorded_at_ms.filter(|ms| *ms >= 0),
        }
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing at all in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The key; none is not the same as an empty one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.map(|len| &self.bytes[..len])
    }

    /// The value; none is a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        let start = self.key.unwrap_or_default();
        self.value.map(|len| &self.bytes[start..start + len])
    }

    /// The headers, in their order, with repeats.
    #[must_use]
    pub fn headers(&self) -> RecordHeaders {
        let mut rest = &self.bytes[self.key.unwrap_or_default() + self.value.unwrap_or_default()..];
        let pairs = std::iter::from_fn(|| {
            let (name, value) = (take(&mut rest)?.0?, take(&mut rest)?.0);
            Some((std::str::from_utf8(name).ok()?, value))
        });
        pairs.collect()
    }

    /// The record's own timestamp, if it has one.
    #[must_use]
    pub fn recorded_at(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.recorded_at_ms?)
    }
}

/// How many bytes a length takes.
const LENGTH: usize = size_of::<u32>();
/// The length of what is not there.
const ABSENT: u32 = u32::MAX;

fn put(bytes: &mut Vec<u8>, field: Option<&[u8]>) {
    let len = field.map(|field| u32::try_from(field.len()).unwrap_or(ABSENT));
    bytes.extend_from_slice(&len.unwrap_or(ABSENT).to_le_bytes());
    bytes.extend_from_slice(field.unwrap_or_default());
}

/// What was put: bytes, or nothing.
struct Field<'a>(Option<&'a [u8]>);

/// Takes the next field; none at the end.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let (len, behind) = rest.split_first_chunk::<LENGTH>()?;
    let len = u32::from_le_bytes(*len);
    *rest = behind;
    if len == ABSENT {
        return Some(Field(None));
    }
    let (field, behind) = behind.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = behind;
    Some(Field(Some(field)))
}

/// Bytes that may be somebody's data are no part of a log.
impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({} bytes)", self.bytes.len())
    }
}

/// A record's headers, and whether all of them can be read.
///
/// The client's library panics at a header whose name is not UTF-8. One record must not end the worker:
/// such a header is kept by a name that says so.
pub(super) fn headers<H: Headers>(headers: Option<&H>) -> (HeaderList<'_>, bool) {
    let Some(headers) = headers else {
        return (Vec::new(), true);
    };
    let all = || headers.iter().map(|header| (header.key, header.value));
    if let Ok(all) = catch_unwind(AssertUnwindSafe(|| all().collect())) {
        return (all, true);
    }
    let each = (0..headers.count()).map(|index| {
        let header = catch_unwind(AssertUnwindSafe(|| headers.try_get(index)));
        let header = header.ok().flatten();
        header.map_or((UNREADABLE, None), |header| (header.key, header.value))
    });
    (each.collect(), false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rdkafka::message::Header;

    use super::*;

    type Field = Option<Vec<u8>>;

    proptest! {
        #[test]
        fn a_record_is_kept_as_it_was(
            key: Field, value: Field,
            headers in prop::collection::vec((".{0,12}", any::<Field>()), 0..6),
        ) {
            let pairs: HeaderList<'_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let raw = Raw::new(key.as_deref(), value.as_deref(), &pairs, Some(1_763_683_200_123));
            prop_assert_eq!(raw.key(), key.as_deref());
            prop_assert_eq!(raw.value(), value.as_deref());
            prop_assert_eq!(raw.headers(), pairs.into_iter().collect());
        }
    }

    /// Headers as the client's library reads them, of which one has a name that it cannot take.
    struct Strange;

    impl Headers for Strange {
        fn count(&self) -> usize {
            3
        }

        fn try_get(&self, index: usize) -> Option<Header<'_, &[u8]>> {
            assert_ne!(index, 1, "the name is not UTF-8");
            let (key, value) = ("fine", Some(&b"value"[..]));
            (index < 3).then_some(Header { key, value })
        }
    }

    #[test]
    fn a_header_without_a_readable_name_is_kept_beside_the_others() {
        let (list, readable) = headers(Some(&Strange));
        assert!(!readable);
        let fine = ("fine", Some(&b"value"[..]));
        assert_eq!(list, [fine, (UNREADABLE, None), fine]);
    }

    #[test]
    fn a_time_that_no_clock_shows_is_none() {
        let at = |ms| Raw::new(None, None, &[], ms).recorded_at();
        assert_eq!(at(None), None);
        assert_eq!(at(Some(-1)), None);
        assert_eq!(at(Some(i64::MAX)), None);
        assert_eq!(at(Some(1_500)).unwrap().timestamp_millis(), 1_500);
    }
}
