use std::{fmt, ops::RangeInclusive};

use thiserror::Error;

/// How long a key may be, in bytes.
const LENGTH: RangeInclusive<usize> = 1..=255;

/// A client's name for one payment: 1 to 255 printable ASCII characters
/// (draft-ietf-httpapi-idempotency-key-header).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// A text that cannot be an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an idempotency key is 1 to 255 printable ASCII characters")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// The key's characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IdempotencyKey {
    type Error = InvalidIdempotencyKey;

    fn try_from(text: String) -> Result<Self, InvalidIdempotencyKey> {
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if LENGTH.contains(&text.len()) && printable {
            Ok(Self(text))
        } else {
            Err(InvalidIdempotencyKey)
        }
    }
}

impl From<IdempotencyKey> for String {
    fn from(key: IdempotencyKey) -> Self {
        key.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_255_printable_ascii_characters() {
        for accepted in [
            "k",
            "8e03978e-40d5-43dd-bc93-6894a57f9324",
            "a b~!",
            &"x".repeat(255),
        ] {
            assert!(
                IdempotencyKey::try_from(accepted.to_owned()).is_ok(),
                "{accepted:?}"
            );
        }
        for refused in ["", "a\0b", "tab\t", "ümlaut", "\u{7f}", &"x".repeat(256)] {
            assert!(
                IdempotencyKey::try_from(refused.to_owned()).is_err(),
                "{refused:?}"
            );
        }
    }
}
