//! Who may call the API: keys, their scopes, and the ring of live keys each request is held
//! against.

pub mod admin;
mod caller;
mod key;
mod ring;
mod sql;

pub use caller::{Caller, Operate, Read, Scoped, Write};
pub use key::{Key, KeyHash, Scope, Scopes};
pub use ring::{KeyRing, KeyRingSettings, LiveKey, keep_fresh};
