use axum::http::StatusCode;

/// The one table of everything that can go wrong for a client: what it is called, its status, its
/// title, and an example of its detail for the OpenAPI document.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:ident, $title:literal, $detail:literal;)*) => {
        /// What went wrong, as a client may match on it. Never renamed once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The `code` member.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The response's status.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The `title` member: the same for each problem of the code.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// A `detail` such as a client may see; that of a 5xx is always this one.
            #[must_use]
            pub const fn usual_detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)* }
            }
        }
    };
}

codes! {
    /// Not HTTP as it should be, e.g. a body that breaks off.
    BadRequest = "bad_request", BAD_REQUEST, "The request cannot be read",
        "The request's body broke off before its end.";
    /// The body is not JSON.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not JSON",
        "Not JSON at line 1, column 18: trailing comma.";
    /// The body is JSON of another shape.
    InvalidBody = "invalid_body", BAD_REQUEST, "The body has the wrong shape",
        "The body does not have the documented shape: see errors.";
    /// The query is not as documented.
    InvalidQuery = "invalid_query", BAD_REQUEST, "The query is not valid",
        "The query does not have the documented parameters: see errors.";
    /// An id in the path is no UUID.
    InvalidPath = "invalid_path", BAD_REQUEST, "The path is not valid",
        "The id in the path is not a UUID: see errors.";
    /// There is no idempotency key.
    IdempotencyKeyMissing = "idempotency_key_missing", BAD_REQUEST, "An idempotency key is needed",
        "Send the header Idempotency-Key: a name for this payment that no other payment of the account bears.";
    /// The header holds no key.
    IdempotencyKeyInvalid = "idempotency_key_invalid", BAD_REQUEST,
        "The idempotency key is not valid",
        "Idempotency-Key is 1 to 255 printable ASCII characters, bare or between double quotes.";
    /// Header and body say different things.
    IdempotencyKeyConflict = "idempotency_key_conflict", BAD_REQUEST,
        "Two different idempotency keys",
        "The header Idempotency-Key and the field idempotency_key differ: send one of them, or the same in both.";
    /// Each item of a batch has a key of its own.
    IdempotencyKeyOnBatch = "idempotency_key_on_batch", BAD_REQUEST,
        "A batch has no idempotency key",
        "Leave the header Idempotency-Key away: each item has its own idempotency_key.";
    /// No usable API key.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A valid API key is needed",
        "Send a live API key: Authorization: Bearer po_…";
    /// The API key may not do this.
    MissingScope = "missing_scope", FORBIDDEN, "The API key lacks a scope",
        "This needs a key with the scope write.";
    /// There is no such path.
    RouteNotFound = "route_not_found", NOT_FOUND, "There is nothing here",
        "No route has this path: see /openapi.json.";
    /// There is no such account.
    AccountNotFound = "account_not_found", NOT_FOUND, "There is no such account",
        "No account has this id.";
    /// There is no such transaction.
    TransactionNotFound = "transaction_not_found", NOT_FOUND, "There is no such transaction",
        "No transaction has this id.";
    /// There is no such dead letter.
    DeadLetterNotFound = "dead_letter_not_found", NOT_FOUND, "There is no such dead letter",
        "No dead letter has this id.";
    /// The path is there, and does not take the method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here",
        "This path takes only the methods in Allow.";
    /// The body did not arrive. Nothing was done.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The body did not arrive in time",
        "The body did not arrive within 10000 ms: send it faster. Nothing was done.";
    /// The id names an account of other content.
    AccountExists = "account_exists", CONFLICT, "The account exists with other content",
        "An account with this id holds another currency: choose another id.";
    /// The account takes no transactions.
    AccountSuspended = "account_suspended", CONFLICT, "The account is suspended",
        "The account takes no transactions until it is ACTIVE again. Nothing was stored, the key may be used later.";
    /// Somebody has replayed or discarded it.
    DeadLetterNotDead = "dead_letter_not_dead", CONFLICT, "The dead letter is not DEAD",
        "The dead letter is REPLAYED: only a DEAD one can be replayed or discarded.";
    /// No publisher would send its replay, and the account's lane would wait behind it.
    DeadLetterTopicUnknown = "dead_letter_topic_unknown", CONFLICT, "The dead letter's topic is not known any more",
        "The dead letter's record is from topic payments, which is neither TRANSACTIONS_TOPIC (transactions) nor RESULTS_TOPIC \
         (transactions.results): give one of them that name again, or discard the dead letter.";
    /// Nothing is left that a replay could apply.
    TransactionFinal = "transaction_final", CONFLICT, "The dead letter's transaction is final",
        "The transaction is FAILED, which is final: nothing is left to apply. Discard the dead letter.";
    /// The body is larger than the limit.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "The body is larger than 1048576 bytes: send less.";
    /// The path and query are longer than the limit.
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The URI is too long",
        "Path and query are longer than 8192 bytes together.";
    /// The body is not sent as JSON.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE,
        "The body has an unsupported type",
        "Send JSON, with Content-Type: application/json and no Content-Encoding.";
    /// Readable, and against the rules.
    ValidationFailed = "validation_failed", UNPROCESSABLE_ENTITY, "Some fields are not valid",
        "Some fields hold values that are not allowed: see errors.";
    /// The account holds another currency.
    CurrencyMismatch = "currency_mismatch", UNPROCESSABLE_ENTITY,
        "The currency is not the account's",
        "The account holds EUR: send that currency. Nothing was stored, the key may be used again.";
    /// The key names another payment.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY,
        "The idempotency key was used before",
        "The account has a transaction with this key and another amount, currency or type: use a new key for a new payment.";
    /// The headers are larger or more than the limits.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE,
        "The headers are too large",
        "The headers are more than 64, or larger than 16384 bytes together.";
    /// Our fault.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong here",
        "The request could not be carried out. Its request_id helps whoever runs this service to find out why.";
    /// More requests than can be taken. Nothing was done.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too much is asked at once",
        "Nothing was done. Send the same request again after the time in Retry-After.";
    /// The database is away.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The service is not available now",
        "No transaction was accepted. Send the same request again after the time in Retry-After; an account opened without \
         an id of yours may have been opened already, and a dead letter may have been replayed or discarded.";
    /// It took too long; what it was to change may be changed.
    Timeout = "timeout", GATEWAY_TIMEOUT, "The request took too long",
        "No answer in time. Send the same request again; an account opened without an id of yours may have been opened already, \
         and a dead letter may have been replayed or discarded.";
    /// The transaction may have been written.
    OutcomeUnknown = "outcome_unknown", GATEWAY_TIMEOUT, "The outcome is not known",
        "The transaction may have been accepted. Send it again with the same idempotency key: it is never accepted twice.";
}

impl Code {
    /// The `type` member (RFC 9457, section 3.1.1): a name, not an address, so it means the same
    /// wherever the API is served.
    #[must_use]
    pub fn type_uri(self) -> String {
        format!("urn:postonce:problem:{}", self.as_str())
    }

    /// What an error response that is not ours (e.g. the router's own 404) stands for.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::RouteNotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            status if status.is_client_error() => Self::BadRequest,
            _ => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_codes_share_a_name() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn every_code_is_an_error() {
        for code in Code::ALL {
            let status = code.status();
            assert!(status.is_client_error() || status.is_server_error());
            assert!(!code.title().is_empty() && !code.usual_detail().is_empty());
        }
    }
}
