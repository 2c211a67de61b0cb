//! Which problems each operation may answer with.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder},
};

use crate::problem::{Code, PROBLEM_JSON};

type Responses = BTreeMap<String, RefOr<Response>>;

const EVERYWHERE: &[Code] = &[
    Code::Unauthorized,
    Code::MissingScope,
    Code::UriTooLong,
    Code::HeadersTooLarge,
    Code::Internal,
    Code::Unavailable,
];
const BODY: &[Code] = &[
    Code::BadRequest,
    Code::MalformedJson,
    Code::InvalidBody,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::ValidationFailed,
    // The bodies of all requests under way have a bound.
    Code::Overloaded,
];
const POSTING: &[Code] = &[
    Code::AccountNotFound,
    Code::AccountSuspended,
    Code::CurrencyMismatch,
    Code::IdempotencyKeyReused,
    Code::OutcomeUnknown,
];

/// For each operation a type that stands in its `responses(…)`.
macro_rules! problems {
    ($($operation:ident: $($group:ident)* [$($code:ident),*];)*) => {$(
        #[doc = concat!("The problems of `", stringify!($operation), "`.")]
        pub(crate) struct $operation;

        impl IntoResponses for $operation {
            fn responses() -> Responses {
                responses(&[EVERYWHERE, $($group,)* &[$(Code::$code),*]].concat())
            }
        }
    )*};
}

problems! {
    CreateAccount: BODY [AccountExists, Timeout];
    ListAccounts: [InvalidQuery, Timeout];
    GetAccount: [InvalidPath, AccountNotFound, Timeout];
    ChangeAccountStatus: BODY [InvalidPath, AccountNotFound, Timeout];
    ListAccountEntries: [InvalidPath, InvalidQuery, AccountNotFound, Timeout];
    CreateTransaction: BODY POSTING [IdempotencyKeyMissing, IdempotencyKeyInvalid, IdempotencyKeyConflict];
    CreateTransactionBatch: BODY [IdempotencyKeyOnBatch];
    ListTransactions: [InvalidQuery, Timeout];
    GetTransaction: [InvalidPath, TransactionNotFound, Timeout];
    ListDeadLetters: [InvalidQuery, Timeout];
    GetDeadLetter: [InvalidPath, DeadLetterNotFound, Timeout];
    ReplayDeadLetter: BODY [
        InvalidPath, DeadLetterNotFound, DeadLetterNotDead, DeadLetterTopicUnknown, TransactionFinal, Timeout
    ];
    DiscardDeadLetter: BODY [InvalidPath, DeadLetterNotFound, DeadLetterNotDead, Timeout];
    ReplayDeadLetters: BODY [Timeout];
}

/// One response a status. One that has a single code is the same wherever it stands.
fn responses(codes: &[Code]) -> Responses {
    let mut by_status: BTreeMap<String, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_status
            .entry(code.status().as_str().to_owned())
            .or_default()
            .push(*code);
    }
    let response = |codes: Vec<Code>| match codes.as_slice() {
        [code] => RefOr::Ref(Ref::from_response_name(code.as_str())),
        codes => RefOr::T(response(codes)),
    };
    by_status
        .into_iter()
        .map(|(status, codes)| (status, response(codes)))
        .collect()
}

/// A response that may have any of these codes, which share a status.
pub(super) fn response(codes: &[Code]) -> Response {
    let titles: Vec<_> = codes
        .iter()
        .map(|code| format!("{} (`{}`).", code.title(), code.as_str()))
        .collect();
    let example = |code: &Code| {
        let name = code.as_str();
        (
            name.to_owned(),
            RefOr::Ref(Ref::new(format!("#/components/examples/{name}"))),
        )
    };
    let content = ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))))
        .examples_from_iter(codes.iter().map(example))
        .build();
    ResponseBuilder::new()
        .description(titles.join(" "))
        .content(PROBLEM_JSON, content)
        .build()
}
