"""What a valid request is, where an OpenAPI document cannot say so.

Only requests that are meant to be valid are touched; the invalid ones go out as they were made.
"""

import itertools
import os
from datetime import datetime

import schemathesis

LISTS = {"list_accounts", "list_account_entries", "list_transactions", "list_dead_letters"}
OF_ONE_DEAD_LETTER = {"get_dead_letter", "replay_dead_letter", "discard_dead_letter"}

# Accounts that were opened on the way, and their currencies.
ACCOUNTS = {}
# The ids that dead_letters.sql made, over and over: nobody can make a dead letter over the API.
DEAD_LETTERS = itertools.cycle(os.environ["DEAD_LETTERS"].split())
# The last dry run: what was asked, and what a run has to send.
DRY_RUN = {}


@schemathesis.hook
def after_call(context, case, response):
    operation = operation_id(case)
    if operation == "create_account" and response.status_code in (200, 201):
        account = response.json()
        ACCOUNTS[account["id"]] = account["currency"]
    elif operation == "replay_dead_letters" and response.status_code == 200:
        remember_dry_run(case.body, response.json())


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    operation = operation_id(case)
    if operation in LISTS:
        make_query_valid(case.query)
    elif operation == "create_transaction" and isinstance(case.body, dict):
        make_payment_valid(case.headers, case.body)
    elif operation in OF_ONE_DEAD_LETTER:
        case.path_parameters["id"] = next(DEAD_LETTERS)
    elif operation == "replay_dead_letters" and isinstance(case.body, dict):
        make_replay_valid(case.body)


def operation_id(case):
    return case.operation.definition.raw.get("operationId")


def make_query_valid(query):
    # A cursor is opaque: no schema tells a right one from a made-up one. The tests of the api page
    # through lists with real ones.
    query.pop("cursor", None)
    # A rule between two parameters.
    if "account_id" not in query:
        query.pop("status", None)
    make_times_valid(query)


def make_times_valid(filter):
    # Another rule between two parameters.
    if filter.get("dead_from") and filter.get("dead_to"):
        order = sorted((filter["dead_from"], filter["dead_to"]), key=datetime.fromisoformat)
        filter["dead_from"], filter["dead_to"] = order


def remember_dry_run(body, answer):
    if answer["dry_run"]:
        DRY_RUN["filter"] = {name: body[name] for name in body if name not in ("dry_run", "reason")}
        DRY_RUN["until"] = answer["until"]


def make_replay_valid(body):
    make_times_valid(body)
    # A cursor comes from a run, and `until`, which no schema can make up either, from a dry run.
    body.pop("cursor", None)
    if body["dry_run"] or not DRY_RUN:
        body["dry_run"] = True
        body.pop("until", None)
    else:
        reason = {"reason": body["reason"]} if "reason" in body else {}
        body.clear()
        body.update(DRY_RUN["filter"], until=DRY_RUN["until"], dry_run=False, **reason)


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
