use common::types::AccountId;
use serde::Deserialize;
use utoipa::ToSchema;
use validator::Validate;

use crate::{
    intake::{IdempotencyKey, NewTransaction},
    openapi::schemas,
    problem::{Code, FieldError, Problem},
    rules,
};

/// A payment instruction.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTransaction {
    /// The account it is posted to.
    #[validate(custom(function = rules::uuid))]
    #[schema(value_type = uuid::Uuid)]
    account_id: String,
    /// How much, in minor units of the currency.
    #[validate(range(min = 1, code = "too_small", message = "must be at least 1 minor unit"))]
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    amount_cents: i64,
    /// ISO 4217; must be the account's.
    #[validate(custom(function = rules::currency))]
    #[schema(value_type = schemas::Currency)]
    currency: String,
    /// Whether the amount is added (CREDIT) or taken (DEBIT).
    #[serde(rename = "type")]
    #[validate(custom(function = rules::transaction_type))]
    #[schema(value_type = schemas::TransactionType)]
    r#type: String,
    /// The client's name for this payment, unique for its account; it may stand in the header
    /// `Idempotency-Key` instead.
    #[validate(custom(function = rules::idempotency_key))]
    #[schema(min_length = 1, max_length = 255, pattern = "^[ -~]+$")]
    idempotency_key: Option<String>,
}

impl CreateTransaction {
    /// Turns the body, and the key of the header if there was one, into an instruction.
    pub(super) fn instruct(
        self,
        header: Option<IdempotencyKey>,
    ) -> Result<NewTransaction, Problem> {
        self.validate().map_err(FieldError::refusal)?;
        let refused = || Problem::new(Code::ValidationFailed);
        let field = match self.idempotency_key {
            Some(key) => Some(IdempotencyKey::try_from(key).map_err(|_| refused())?),
            None => None,
        };
        Ok(NewTransaction {
            account_id: AccountId(rules::parse_uuid(&self.account_id).ok_or_else(refused)?),
            amount_cents: self.amount_cents.try_into().map_err(|_| refused())?,
            currency: self.currency.parse().map_err(|_| refused())?,
            transaction_type: self.r#type.parse().map_err(|_| refused())?,
            idempotency_key: one_key(header, field)?,
        })
    }
}

/// The key may stand in the header, in the body, or the same in both.
fn one_key(
    header: Option<IdempotencyKey>,
    field: Option<IdempotencyKey>,
) -> Result<IdempotencyKey, Problem> {
    match (header, field) {
        (Some(header), Some(field)) if header != field => {
            Err(Problem::new(Code::IdempotencyKeyConflict))
        }
        (Some(key), _) | (None, Some(key)) => Ok(key),
        (None, None) => Err(Problem::new(Code::IdempotencyKeyMissing)),
    }
}
