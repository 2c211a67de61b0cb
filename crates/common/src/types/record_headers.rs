use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// A record's headers as they were: in their order, with repeats, whatever their bytes.
///
/// As JSON (`headers` of `parked_events` and `dead_letters`) it is one array of pairs: the value is a
/// text where the bytes are one, `{"base64": "…"}` where they are not, and null where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordHeaders(pub Vec<(String, HeaderValue)>);

/// The value of a record's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderValue {
    /// UTF-8.
    Text(String),
    /// Other bytes.
    Bytes {
        /// RFC 4648, section 4, with padding.
        base64: Base64,
    },
    /// A header may have no value.
    None,
}

/// Bytes, written in JSON as base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Base64(pub Vec<u8>);

impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        STANDARD.encode(bytes.0)
    }
}

impl TryFrom<String> for Base64 {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

impl HeaderValue {
    /// The bytes on the wire.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text.as_bytes()),
            Self::Bytes { base64 } => Some(&base64.0),
            Self::None => None,
        }
    }
}

impl From<Option<&[u8]>> for HeaderValue {
    fn from(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else {
            return Self::None;
        };
        match std::str::from_utf8(bytes) {
            // PostgreSQL's json, unlike JSON itself, may hold the escape of NUL; its functions over
            // it may not, so it travels as bytes.
            Ok(text) if !text.contains('\0') => Self::Text(text.to_owned()),
            _ => Self::Bytes {
                base64: Base64(bytes.to_vec()),
            },
        }
    }
}

impl<'a> FromIterator<(&'a str, Option<&'a [u8]>)> for RecordHeaders {
    fn from_iter<T: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>>(headers: T) -> Self {
        let pairs = headers.into_iter();
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_reads_as_text_and_other_bytes_as_base64() {
        let headers: RecordHeaders = [
            ("ce_id", Some("x".as_bytes())),
            ("odd", Some(&[0xff, 0x00][..])),
            ("none", None),
            ("ce_id", Some(b"again")),
        ]
        .into_iter()
        .collect();
        assert_eq!(
            serde_json::to_string(&headers).unwrap(),
            r#"[["ce_id","x"],["odd",{"base64":"/wA="}],["none",null],["ce_id","again"]]"#
        );
    }

    proptest! {
        #[test]
        fn headers_come_back_as_they_were(
            pairs in proptest::collection::vec(
                (".*", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))), 0..8)
        ) {
            let headers: RecordHeaders =
                pairs.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let json = serde_json::to_string(&headers).unwrap();
            let read: RecordHeaders = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read, &headers);
            let bytes: Vec<_> = read
                .0
                .iter()
                .map(|(name, value)| (name.clone(), value.bytes().map(<[u8]>::to_vec)))
                .collect();
            prop_assert_eq!(bytes, pairs);
        }
    }
}
