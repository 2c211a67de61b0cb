//! Dead letters: records that were given up, as the worker and the publisher write them down, the
//! publisher sends them and the api shows them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::transaction::{UnknownName, names};

names! {
    /// Why a record was given up (`dlq.error.class`).
    DeadLetterClass, "snake_case";
    /// Its headers, key or value are not an event's. Never possible.
    Undecodable = "undecodable",
    /// Written in a version of the payload that is not known here. Never possible.
    UnknownSchemaVersion = "unknown_schema_version",
    /// It claims what the transaction's row, the authority, does not say. Never possible.
    Mismatch = "mismatch",
    /// It failed at its first attempt and at each retry.
    RetriesExhausted = "retries_exhausted",
    /// A copy of a business rejection: its transaction is FAILED, which is final.
    Rejected = "rejected",
    /// The broker takes no such record, too large for instance; it never reached its topic.
    RefusedByBroker = "refused_by_broker",
}

names! {
    /// Where a record failed (`dlq.error.stage`).
    DeadLetterStage, "snake_case";
    /// When it was sent.
    Publish = "publish",
    /// When it was read.
    Decode = "decode",
    /// When it was compared with its transaction's row.
    Compare = "compare",
    /// When it was posted.
    Apply = "apply",
}

names! {
    /// What became of a dead letter.
    DeadLetterState, "UPPERCASE";
    /// It waits for somebody.
    Dead = "DEAD",
    /// It was sent again.
    Replayed = "REPLAYED",
    /// Somebody decided that it is never applied. Final.
    Discarded = "DISCARDED",
}
