//! The wire contract: ids, money, currencies, lanes, events. No I/O.

mod currency;
mod dead_letter;
mod envelope;
mod events;
mod ids;
mod lane;
mod lane_set;
mod money;
mod record_headers;
mod transaction;

pub use currency::{Currency, UnknownCurrency};
pub use dead_letter::{DeadLetterClass, DeadLetterStage, DeadLetterState};
pub use envelope::{EventEnvelope, EventHeaders, MalformedEvent};
pub use events::{
    EventType, SCHEMA_VERSION, TransactionCreated, TransactionFailed, TransactionProcessed,
    UnknownEventType,
};
pub use ids::{AccountId, EventId, TransactionId};
pub use lane::{LANES, Lane};
pub use lane_set::{LaneSet, MalformedLaneSet};
pub use money::{AmountCents, NotPositive};
pub use record_headers::{Base64, HeaderValue, RecordHeaders};
pub use transaction::{
    AccountStatus, FailureReason, TransactionStatus, TransactionType, UnknownName,
};
