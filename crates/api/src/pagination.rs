//! Lists come in pages, each with an opaque cursor to the next.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::extract::Params;

pub(crate) const LIMIT_DEFAULT: u16 = 50;
pub(crate) const LIMIT_MAX: u16 = 200;
const LIMIT_RULE: &str = "must be a whole number from 1 to 200";
const CURSOR_RULE: &str =
    "must be a next_cursor as it was given, for the same list with the same parameters";

/// Bytes of the position, and of the checksum behind it.
const POSITION_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;

/// A page of a list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Page<T> {
    /// The rows; there may be fewer than the limit although more follow.
    pub data: Vec<T>,
    /// Where the next page begins; null at the end.
    pub next_cursor: Option<String>,
}

/// How many rows a page may have.
pub(crate) fn take_limit(params: &mut Params) -> u16 {
    let in_range = |text: &str| {
        text.parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
    };
    params
        .take_with("limit", LIMIT_RULE, in_range)
        .unwrap_or(LIMIT_DEFAULT)
}

/// A list with its filters, which its cursors are bound to: one from another list would skip rows
/// in silence.
#[derive(Clone, Debug)]
pub(crate) struct Listing(String);

impl Listing {
    /// Named by its route's path and whatever narrows it.
    pub(crate) fn new(description: String) -> Self {
        Self(description)
    }

    /// The position of the page asked for, if it is not the first.
    pub(crate) fn take_cursor(&self, params: &mut Params) -> Option<u128> {
        params.take_with("cursor", CURSOR_RULE, |text| self.decode(text))
    }

    pub(crate) fn encode(&self, position: u128) -> String {
        let position = position.to_be_bytes();
        let mut bytes = position.to_vec();
        bytes.extend_from_slice(&self.checksum(&position));
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn decode(&self, text: &str) -> Option<u128> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (position, checksum) = bytes.split_first_chunk::<POSITION_BYTES>()?;
        (checksum == self.checksum(position)).then(|| u128::from_be_bytes(*position))
    }

    /// Not a signature: a cursor gives nothing that the list does not. It finds mistakes.
    fn checksum(&self, position: &[u8; POSITION_BYTES]) -> [u8; CHECKSUM_BYTES] {
        let digest = Sha256::new()
            .chain_update(position)
            .chain_update(&self.0)
            .finalize();
        let mut checksum = [0; CHECKSUM_BYTES];
        checksum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
        checksum
    }

    /// Makes a page of rows of which one more than the limit was asked for. `stopped_at` is where
    /// the next page begins if the search stopped before the list's end.
    pub(crate) fn page<T>(
        &self,
        mut rows: Vec<T>,
        limit: u16,
        stopped_at: Option<u128>,
        position: impl Fn(&T) -> u128,
    ) -> Page<T> {
        let next = if rows.len() > usize::from(limit) {
            rows.truncate(limit.into());
            rows.last().map(position)
        } else {
            stopped_at
        };
        Page {
            data: rows,
            next_cursor: next.map(|position| self.encode(position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_back_by_its_own_list_only(position in any::<u128>()) {
            let list = Listing::new("transactions of a".to_owned());
            let cursor = list.encode(position);
            prop_assert_eq!(list.decode(&cursor), Some(position));
            prop_assert_eq!(Listing::new("transactions of b".to_owned()).decode(&cursor), None);
        }

        #[test]
        fn a_cursor_that_was_touched_is_refused(position in any::<u128>(), at in 0_usize..32, to in "[A-Za-z0-9_-]") {
            let list = Listing::new("transactions".to_owned());
            let cursor = list.encode(position);
            let touched = format!("{}{to}{}", &cursor[..at], &cursor[at + 1..]);
            prop_assume!(touched != cursor);
            prop_assert_eq!(list.decode(&touched), None);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            Listing::new(String::new()).decode(&text);
        }
    }
}
