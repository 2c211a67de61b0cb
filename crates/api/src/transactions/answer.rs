use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::Transaction;
use crate::{
    intake::{IntakeError, Outcome, Refusal},
    problem::{Code, Problem},
};

/// Says that a response is the one of an earlier request with the same key.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A transaction that was accepted, now or before.
pub(super) struct Accepted {
    pub(super) transaction: Transaction,
    pub(super) replayed: bool,
}

impl Accepted {
    pub(super) fn status(&self) -> StatusCode {
        if self.replayed {
            StatusCode::OK
        } else {
            StatusCode::ACCEPTED
        }
    }
}

/// What the intake's answer means to a client.
pub(super) fn accepted(answer: Result<Outcome, IntakeError>) -> Result<Accepted, Problem> {
    match answer {
        Ok(Outcome::Created(transaction)) => Ok(Accepted {
            transaction,
            replayed: false,
        }),
        Ok(Outcome::Replayed(transaction)) => Ok(Accepted {
            transaction,
            replayed: true,
        }),
        Ok(Outcome::Refused(refusal)) => Err(refused(refusal)),
        Err(error) => Err(undecided(error)),
    }
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::UnknownAccount => Code::AccountNotFound.into(),
        Refusal::AccountSuspended => Code::AccountSuspended.into(),
        Refusal::CurrencyMismatch { account_currency } => Problem::new(Code::CurrencyMismatch).detail(format!(
            "The account holds {account_currency}: send that currency. Nothing was stored, the key may be used again."
        )),
        Refusal::KeyReused => Code::IdempotencyKeyReused.into(),
    }
}

fn undecided(error: IntakeError) -> Problem {
    match error {
        IntakeError::Overloaded => Code::Overloaded.into(),
        IntakeError::NotWritten => Problem::new(Code::Unavailable).because(error),
        IntakeError::OutcomeUnknown => Problem::new(Code::OutcomeUnknown).because(error),
        IntakeError::Failed => Problem::new(Code::Internal).because(error),
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let header = if self.replayed {
            Ok((IDEMPOTENT_REPLAYED, HeaderValue::from_static("true")))
        } else {
            let path = format!("/v1/transactions/{}", self.transaction.id);
            HeaderValue::from_str(&path).map(|path| (header::LOCATION, path))
        };
        let mut response = (self.status(), Json(self.transaction)).into_response();
        if let Ok((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
