use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::{examples, problems, schemas, service};
use crate::{
    problem::{Code, FieldError},
    routes,
};

const DESCRIPTION: &str = "\
Postonce takes a payment instruction and posts it to a ledger **once**: what was acknowledged is \
never lost, and nothing is applied twice.

Every request below `/v1` needs a key, `Authorization: Bearer po_…`, with the scope that the \
operation names. Every error is `application/problem+json` (RFC 9457) with a stable `code`. \
Lists come in pages: pass `next_cursor` as `cursor` until it is null. Money is in minor units of \
its currency (cents).";

#[derive(OpenApi)]
#[openapi(
    info(title = "Postonce", description = DESCRIPTION, license(name = "MIT", identifier = "MIT")),
    servers((url = "/", description = "Where this document is served")),
    tags(
        (name = "accounts", description = "Accounts and their statements"),
        (name = "transactions", description = "Payment instructions and what became of them"),
        (name = "dead letters", description = "Records that were given up: listed, inspected, replayed, discarded"),
        (name = "service", description = "The service itself; open to everyone"),
    ),
    components(schemas(schemas::Problem, FieldError)),
)]
struct Postonce;

/// What the code says of itself, and what holds for every operation, put together.
pub(super) fn document() -> Value {
    let (_, paths) = routes::v1().merge(service::documented()).split_for_parts();
    let mut document = Postonce::openapi();
    document.merge(paths);
    // Whatever utoipa makes serializes: its types hold text and numbers.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    add_components(&mut document);
    for operation in operations(&mut document) {
        let parameters = operation["parameters"].as_array_mut();
        parameters
            .into_iter()
            .flatten()
            .for_each(|parameter| forbid_null(&mut parameter["schema"]));
        push(
            operation,
            "parameters",
            json!({ "$ref": "#/components/parameters/XRequestId" }),
        );
        let responses = operation["responses"].as_object_mut();
        responses
            .into_iter()
            .flatten()
            .for_each(|(status, response)| add_headers(status, response));
    }
    document
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(_, item)| {
        item.as_object_mut()
            .into_iter()
            .flatten()
            .map(|(_, operation)| operation)
    })
}

/// utoipa takes an optional parameter for one that may be null, which no query or header can be.
fn forbid_null(schema: &mut Value) {
    if let Some(types) = schema["type"].as_array_mut() {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
}

fn push(operation: &mut Value, list: &str, item: Value) {
    match operation[list].as_array_mut() {
        Some(items) => items.push(item),
        None => operation[list] = json!([item]),
    }
}

fn add_components(document: &mut Value) {
    let components = &mut document["components"];
    components["examples"] =
        by_code(|code| json!({ "summary": code.title(), "value": examples::problem(code) }));
    components["responses"] = by_code(|code| {
        let mut response = json!(problems::response(&[code]));
        add_headers(code.status().as_str(), &mut response);
        response
    });
    components["parameters"] = json!({ "XRequestId": request_id_parameter() });
    components["headers"] = headers();
    components["securitySchemes"] = json!({ "api_key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key made with `api keys create`. Its scopes say what it may do: `read` sees, \
                        `write` opens accounts and posts transactions, `operate` suspends accounts and works on dead letters, \
                        whose records it sees as they were.",
    } });
}

fn by_code(value: impl Fn(Code) -> Value) -> Value {
    Code::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), value(*code)))
        .collect::<Map<_, _>>()
        .into()
}

/// The headers that every response of a status has.
fn add_headers(status: &str, response: &mut Value) {
    if response.get("$ref").is_some() {
        return;
    }
    let more = match status {
        "401" => Some("WWW-Authenticate"),
        "503" => Some("Retry-After"),
        _ => None,
    };
    for name in more.into_iter().chain(["X-Request-Id"]) {
        let component = name.replace('-', "");
        response["headers"][name] = json!({ "$ref": format!("#/components/headers/{component}") });
    }
}

fn request_id_parameter() -> Value {
    json!({
        "name": "X-Request-Id",
        "in": "header",
        "required": false,
        "description": "The client's name for this request, for logs on both sides. Used if it is 1 to 128 \
                        printable ASCII characters without spaces, else replaced.",
        "schema": { "type": "string" },
        "example": "checkout-17",
    })
}

fn headers() -> Value {
    json!({
        "XRequestId": {
            "description": "The request's name in the service's logs: the client's, or one made for it.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$" },
        },
        "RetryAfter": {
            "description": "After how many seconds to send the request again.",
            "schema": { "type": "integer", "format": "int32", "minimum": 1 },
        },
        "WWWAuthenticate": {
            "description": "How to authenticate (RFC 6750).",
            "schema": { "type": "string" },
        },
    })
}
