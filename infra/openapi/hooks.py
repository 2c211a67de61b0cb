"""What a valid request is, where an OpenAPI document cannot say so.

Only requests that are meant to be valid are touched; the invalid ones go out as they were made.
"""

import schemathesis

LISTS = {"list_accounts", "list_account_entries", "list_transactions"}

# Accounts that were opened on the way, and their currencies.
ACCOUNTS = {}


@schemathesis.hook
def after_call(context, case, response):
    if operation_id(case) == "create_account" and response.status_code in (200, 201):
        account = response.json()
        ACCOUNTS[account["id"]] = account["currency"]


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    operation = operation_id(case)
    if operation in LISTS:
        make_query_valid(case.query)
    elif operation == "create_transaction" and isinstance(case.body, dict):
        make_payment_valid(case.headers, case.body)


def operation_id(case):
    return case.operation.definition.raw.get("operationId")


def make_query_valid(query):
    # A cursor is opaque: no schema tells a right one from a made-up one. The tests of the api page
    # through lists with real ones.
    query.pop("cursor", None)
    # A rule between two parameters.
    if "account_id" not in query:
        query.pop("status", None)


def make_payment_valid(headers, body):
    # A rule between a header and a field: the key stands in one of them, or the same in both.
    if headers.get("Idempotency-Key") is not None:
        body.pop("idempotency_key", None)
    elif not body.get("idempotency_key"):
        body["idempotency_key"] = "made-by-hooks.py"
    # To JSON Schema 5.0 is an integer. To us it is not: an amount that went through floating point
    # may have been rounded on its way.
    amount = body.get("amount_cents")
    if isinstance(amount, float) and amount.is_integer():
        body["amount_cents"] = int(amount)
    # An account made up is never found, and one found wants its own currency.
    if ACCOUNTS and body.get("account_id") not in ACCOUNTS:
        body["account_id"] = list(ACCOUNTS)[-1]
    body["currency"] = ACCOUNTS.get(body.get("account_id"), body.get("currency"))
