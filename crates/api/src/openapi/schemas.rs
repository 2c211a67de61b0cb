//! Schemas of types that are not ours to derive them for, and of those that exist as text only.

use std::borrow::Cow;

use common::types::FailureReason;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{SchemaType, Type},
    },
};

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
        "How far a transaction has come. PROCESSED (posted to the ledger) and FAILED (refused, with a \
         reason) are final.";
    /// `common::types::AccountStatus`.
    AccountStatus, common::types::AccountStatus::NAMES,
        "Whether an account takes transactions: a SUSPENDED one refuses debits and credits.";
}

/// `Option<common::types::FailureReason>`. Written out, because client generators stumble over a
/// `oneOf` of a reference and null.
pub(crate) fn failure_reason() -> ObjectBuilder {
    let names = FailureReason::NAMES.iter().map(|name| Some(*name));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some("Why it was refused; null unless it is FAILED."))
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
