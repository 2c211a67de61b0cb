use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use common::types::UnknownName;
use sha2::{Digest, Sha256};

/// What every key begins with, so that one that leaked is recognised for what it is.
const PREFIX: &str = "po_";
const RANDOM_BYTES: usize = 32;
/// 32 bytes in base64 without padding.
const RANDOM_CHARACTERS: usize = 43;

/// An API key as its holder knows it. It is shown once and stored nowhere.
pub struct Key(String);

/// The SHA-256 of a key, under which it is stored. A key is 256 random bits, so there is nothing to
/// guess and no slow hash is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl Key {
    /// Makes a key of 256 bits of the operating system's randomness.
    ///
    /// # Errors
    /// If the operating system has none.
    pub fn make() -> Result<Self, rand::rngs::SysError> {
        let mut bytes = [0_u8; RANDOM_BYTES];
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut bytes)?;
        Ok(Self(format!(
            "{PREFIX}{}",
            BASE64_URL_SAFE_NO_PAD.encode(bytes)
        )))
    }

    /// The key itself; to be shown to its holder only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl KeyHash {
    fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// The hash of a text that looks like a key; none for any other, which need not be looked up.
    #[must_use]
    pub fn of_presented(text: &str) -> Option<Self> {
        let random = text.strip_prefix(PREFIX)?;
        let well_formed = random.len() == RANDOM_CHARACTERS
            && random
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        well_formed.then(|| Self::of(text))
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// See accounts and transactions.
    Read,
    /// Open accounts and post transactions.
    Write,
    /// Suspend accounts and set them free; see dead letters, replay and discard them.
    Operate,
}

impl Scope {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Operate];
    const NAMES: [&'static str; 3] = ["read", "write", "operate"];

    /// The name in SQL, on the command line and in the OpenAPI document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Operate => "operate",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl FromStr for Scope {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let mut all = Self::ALL.into_iter();
        all.find(|scope| scope.as_str() == name)
            .ok_or(UnknownName(&Self::NAMES))
    }
}

/// A set of scopes. None contains another: a key that may operate may not read unless it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether a scope is among them.
    #[must_use]
    pub const fn contain(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Their names, in a fixed order.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let all = Scope::ALL.into_iter();
        all.filter(|scope| self.contain(*scope))
            .map(Scope::as_str)
            .collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl FromStr for Scopes {
    type Err = UnknownName;

    /// Names with commas between them, as the command line has them.
    fn from_str(names: &str) -> Result<Self, UnknownName> {
        names
            .split(',')
            .map(|name| name.trim().parse::<Scope>())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_recognised_and_hides_itself() {
        let key = Key::make().unwrap();
        assert!(key.reveal().starts_with("po_"));
        assert_eq!(KeyHash::of_presented(key.reveal()), Some(key.hash()));
        assert_eq!(format!("{key:?}"), "Key(…)");
        assert_ne!(Key::make().unwrap().reveal(), key.reveal());
    }

    #[test]
    fn what_does_not_look_like_a_key_is_none() {
        let wrong_alphabet = format!("po_{}", "+".repeat(43));
        for text in [
            "",
            "po_",
            "po_short",
            "sk_0123456789012345678901234567890123456789012",
            &wrong_alphabet,
        ] {
            assert_eq!(KeyHash::of_presented(text), None, "{text}");
        }
    }

    #[test]
    fn scopes_are_a_set_of_names() {
        let scopes: Scopes = "write, read,write".parse().unwrap();
        assert_eq!(scopes.names(), ["read", "write"]);
        assert!(!scopes.contain(Scope::Operate));
        let error = "read,admin".parse::<Scopes>().unwrap_err();
        assert_eq!(error.to_string(), "must be one of read, write, operate");
    }
}
