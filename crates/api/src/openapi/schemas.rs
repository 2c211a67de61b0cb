//! Schemas of types that are not ours to derive them for, and of those that exist as text only.

use std::borrow::Cow;

use common::types::{DeadLetterClass as Class, FailureReason};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{SchemaType, Type},
    },
};

use crate::{dead_letters::ACCOUNT_BUSY, problem::Code, rules};

/// Closed sets of names, each a named schema, so that a generated client has one type for each.
macro_rules! names {
    ($($(#[$doc:meta])* $schema:ident, $names:expr, $description:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $schema;

        impl PartialSchema for $schema {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .enum_values(Some($names.iter().copied()))
                    .into()
            }
        }

        impl ToSchema for $schema {
            fn name() -> Cow<'static, str> {
                stringify!($schema).into()
            }
        }
    )*};
}

names! {
    /// `common::types::Currency`.
    Currency, common::types::Currency::codes(), "A currency of ISO 4217.";
    /// `common::types::TransactionType`.
    TransactionType, common::types::TransactionType::NAMES,
        "What a transaction does to its account's balance: DEBIT takes the amount, CREDIT adds it.";
    /// `common::types::TransactionStatus`.
    TransactionStatus, common::types::TransactionStatus::NAMES,
        "How far a transaction has come. PENDING was accepted; PROCESSING could not be posted yet, and is tried again \
         or (`dead_lettered`) waits for an operator. PROCESSED (posted to the ledger) and FAILED (refused, with a \
         reason) are final.";
    /// `common::types::AccountStatus`.
    AccountStatus, common::types::AccountStatus::NAMES,
        "Whether an account takes transactions: a SUSPENDED one refuses debits and credits.";
    /// `common::types::DeadLetterState`.
    DeadLetterState, common::types::DeadLetterState::NAMES,
        "What became of a dead letter: DEAD waits for somebody, REPLAYED was sent again, DISCARDED is never applied.";
    /// `common::types::DeadLetterClass`.
    DeadLetterClass, Class::NAMES,
        "Why a record was given up. Never possible: undecodable, unknown_schema_version, mismatch (it claims what the \
         transaction's row does not say). Failed at each attempt: retries_exhausted. A copy of a business rejection, whose \
         transaction is final: rejected. Never taken by the broker: refused_by_broker.";
    /// `common::types::DeadLetterStage`.
    DeadLetterStage, common::types::DeadLetterStage::NAMES,
        "Where a record failed: when it was sent, read, compared with its transaction's row, or posted.";
    /// The actions of `dead_letter_actions`.
    DeadLetterActionName, ["REPLAY", "DISCARD"], "What was done to a dead letter.";
}

/// `Option<common::types::FailureReason>`.
pub(crate) fn failure_reason() -> ObjectBuilder {
    name_or_null(FailureReason::NAMES).description(Some(
        "Why it was refused, where it is FAILED; `dead_lettered` while it is PROCESSING and waits for an operator, who \
         replays or discards it; else null.",
    ))
}

/// `Option<common::types::DeadLetterClass>`.
pub(crate) fn optional_dead_letter_class() -> ObjectBuilder {
    name_or_null(Class::NAMES).description(Some("Only those given up for this reason."))
}

/// The rule of a reason: no control characters, and something to read.
const REASON_PATTERN: &str =
    r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$";

/// Why somebody acts.
pub(crate) fn reason() -> ObjectBuilder {
    words(Type::String)
}

/// Why somebody acts, or null.
pub(crate) fn optional_reason() -> ObjectBuilder {
    words(SchemaType::from_iter([Type::String, Type::Null]))
}

fn words(schema_type: impl Into<SchemaType>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(schema_type)
        .description(Some(
            "Why, on one line; it stands in the record of what was done.",
        ))
        .min_length(Some(1))
        .max_length(Some(rules::REASON_CHARACTERS_MAX))
        .pattern(Some(REASON_PATTERN))
}

/// Why a letter was left out of a replay of many.
pub(crate) fn skip_code() -> ObjectBuilder {
    let of_problems = [
        Code::DeadLetterNotDead,
        Code::DeadLetterTopicUnknown,
        Code::TransactionFinal,
        Code::Internal,
        Code::Unavailable,
    ];
    let codes = of_problems.map(Code::as_str).into_iter();
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(
            "`account_busy`: somebody held a lock that it needs, as a rule its account's, for longer than 500 ms; the \
             later letters of the account are left out with it. Else the code of the problem that a replay of it alone \
             is answered with; `internal` and `unavailable` have their cause in the log.",
        ))
        .enum_values(Some(codes.chain([ACCOUNT_BUSY])))
}

/// Bytes of a record, or null where it has none.
pub(crate) fn record_bytes() -> ObjectBuilder {
    let member = |description| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(description))
    };
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(
            "Byte for byte, in one of two forms; null where the record has none.",
        ))
        .property("text", member("The bytes, where they are UTF-8."))
        .property(
            "base64",
            member("The bytes in base64 (RFC 4648, section 4), where they are not."),
        )
}

/// Written out, because client generators stumble over a `oneOf` of a reference and null.
fn name_or_null(names: &'static [&'static str]) -> ObjectBuilder {
    let names = names.iter().map(|name| Some(*name));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(names.chain([None])))
}

/// Problem details (RFC 9457).
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it exists for its schema; `problem::ProblemBody` is what is sent"
)]
pub(crate) struct Problem {
    /// Names the kind of problem: `urn:postonce:problem:` and the code.
    #[schema(format = "uri")]
    r#type: String,
    /// The kind of problem in words.
    title: String,
    /// The response's status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong this time, and what to change.
    detail: String,
    /// The kind of problem, to match on.
    code: String,
    /// Names the request in the service's logs.
    request_id: String,
    /// What is wrong with single fields.
    #[schema(required = false)]
    errors: Vec<crate::problem::FieldError>,
}

/// A payment instruction of a batch.
#[derive(ToSchema)]
#[schema(as = BatchTransaction)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "it exists for its schema: an item's key has no header to stand in"
)]
pub(crate) struct BatchItem {
    /// The account it is posted to.
    account_id: uuid::Uuid,
    /// How much, in minor units of the currency.
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    amount_cents: i64,
    /// ISO 4217; must be the account's.
    #[schema(inline = false)]
    currency: Currency,
    /// Whether the amount is added (CREDIT) or taken (DEBIT).
    r#type: TransactionType,
    /// The client's name for this payment, unique for its account.
    #[schema(min_length = 1, max_length = 255, pattern = "^[ -~]+$")]
    idempotency_key: String,
}
