use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            sqlx::Type,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, a UUID version 7 (RFC 9562): later ones of this process sort behind.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id!(
    /// Names an account; made by the client or by the api.
    AccountId
);
uuid_id!(
    /// Names a transaction; made by the api.
    TransactionId
);
uuid_id!(
    /// Names an event (`ce_id`); consumers deduplicate by it.
    EventId
);

impl From<TransactionId> for EventId {
    /// A `transaction.created` event bears the id of its transaction, so it can be rebuilt from the
    /// transaction's row and still be recognised as the same event.
    fn from(id: TransactionId) -> Self {
        Self(id.0)
    }
}
