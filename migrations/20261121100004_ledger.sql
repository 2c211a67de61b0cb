-- The account statement: append-only, numbered from 1 without gaps for each account.
CREATE TABLE ledger_entries (
    account_id          uuid        NOT NULL,
    entry_no            bigint      NOT NULL,
    transaction_id      uuid        NOT NULL,
    amount_cents        bigint      NOT NULL,
    balance_after_cents bigint      NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    -- Serves: GET /v1/accounts/{id}/entries, and forbids two entries with one number.
    CONSTRAINT ledger_entries_pkey PRIMARY KEY (account_id, entry_no),
    -- Serves: promise 2, a transaction makes at most one entry.
    CONSTRAINT ledger_entries_one_per_transaction UNIQUE (transaction_id, account_id),
    CONSTRAINT ledger_entries_entry_no_from_one CHECK (entry_no >= 1),
    CONSTRAINT ledger_entries_amount_not_zero CHECK (amount_cents <> 0),
    CONSTRAINT ledger_entries_balance_not_negative CHECK (balance_after_cents >= 0)
);

-- The events the worker has closed (applied or rejected): what consumers call their inbox. Written
-- before the event is applied, in the same transaction.
CREATE TABLE processed_events (
    event_id       uuid        NOT NULL,
    account_id     uuid        NOT NULL,
    transaction_id uuid        NOT NULL,
    processed_at   timestamptz NOT NULL DEFAULT now(),
    -- Serves: "was this event closed?", and pruning from the oldest on: event ids are UUIDv7.
    CONSTRAINT processed_events_pkey PRIMARY KEY (event_id, account_id)
);
