-- An account holds money of one currency. Its balance is the sum of its ledger entries, kept here
-- so that a debit can be decided without reading them.
CREATE TABLE accounts (
    id            uuid        NOT NULL,
    balance_cents bigint      NOT NULL DEFAULT 0,
    entry_count   bigint      NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    currency      text        NOT NULL,
    status        text        NOT NULL DEFAULT 'ACTIVE',
    -- Serves: look-ups by id (intake's join, the worker's lock) and the account list in id order.
    CONSTRAINT accounts_pkey PRIMARY KEY (id),
    CONSTRAINT accounts_balance_not_negative CHECK (balance_cents >= 0),
    CONSTRAINT accounts_entry_count_not_negative CHECK (entry_count >= 0),
    CONSTRAINT accounts_currency_iso_4217 CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT accounts_status_known CHECK (status IN ('ACTIVE', 'SUSPENDED'))
)
-- More than half of each page stays free: the worker rewrites balances, and a new version on the same
-- page (a HOT update) touches no index. At 50 some of a page's second versions did not fit.
WITH (fillfactor = 45);
