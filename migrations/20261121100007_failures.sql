-- Failures: events that wait for a retry (parked), and those that were given up (dead letters).

-- How many of the account's events are parked. Whoever posts for an account locks its row anyway, and
-- so learns for nothing whether to queue behind them. Not indexed: an update of it stays HOT.
ALTER TABLE accounts ADD COLUMN parked_count integer NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD CONSTRAINT accounts_parked_count_not_negative
    CHECK (parked_count >= 0) NOT VALID;

-- A transaction whose event is a dead letter is PROCESSING with this one reason. The constraint it
-- replaces forbade that; the next file validates this one.
ALTER TABLE transactions ADD CONSTRAINT transactions_reason_fits_status CHECK (
    CASE status
        WHEN 'FAILED' THEN failure_reason IS NOT NULL
        WHEN 'PROCESSING' THEN failure_reason IS NULL OR failure_reason = 'dead_lettered'
        ELSE failure_reason IS NULL
    END) NOT VALID;
ALTER TABLE transactions DROP CONSTRAINT transactions_failure_has_reason;

-- The row of a dead letter, or of its replay, carries no payload: the publisher sends the bytes that
-- stand in dead_letters.
ALTER TABLE outbox_events ADD COLUMN dead_letter_id uuid;
ALTER TABLE outbox_events ALTER COLUMN payload DROP NOT NULL;
ALTER TABLE outbox_events ADD CONSTRAINT outbox_events_payload_or_dead_letter
    CHECK ((payload IS NULL) = (dead_letter_id IS NOT NULL)) NOT VALID;

-- A queue for each account with an event that could not be applied: that event at its head, and behind
-- it the later ones of the account, in order. Rows come and go under the account's lock.
CREATE TABLE parked_events (
    account_id       uuid        NOT NULL,
    -- Drawn under the account's lock, so that it is the order of the account's events.
    position         bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1),
    event_id         uuid        NOT NULL,
    source_offset    bigint      NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    -- The record's own timestamp, if it has one.
    recorded_at      timestamptz,
    first_failed_at  timestamptz,
    -- Set for the head of a queue alone: nothing behind it is tried before it is gone.
    next_attempt_at  timestamptz,
    source_partition integer     NOT NULL,
    attempts         integer     NOT NULL DEFAULT 0,
    source_topic     text        NOT NULL,
    key              bytea,
    value            bytea,
    -- [["name", "text"], ["name", {"base64": "…"}], ["name", null], …], in the record's order.
    headers          json        NOT NULL,
    last_error       text,
    -- Serves: an account's queue in its order.
    CONSTRAINT parked_events_pkey PRIMARY KEY (account_id, position),
    -- Serves: an event that comes again is parked once.
    CONSTRAINT parked_events_once UNIQUE (event_id, account_id),
    CONSTRAINT parked_events_attempts_not_negative CHECK (attempts >= 0)
)
-- It is a queue, as outbox_events is.
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000,
      autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0);

-- Serves: the retry loop's look for heads that are due, and when the next one will be.
CREATE INDEX parked_events_due ON parked_events (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

-- Records that were given up, as they were: what an operator inspects, replays or discards, and what
-- the publisher sends to the dead letter topic.
CREATE TABLE dead_letters (
    id               uuid        NOT NULL,
    -- The account the record claims; the nil id where it claims none that can be read.
    account_id       uuid        NOT NULL,
    -- The claimed id of the event; null where none can be read.
    event_id         uuid,
    -- Of a genuine transaction.created event alone: the transaction that waits for this letter.
    transaction_id   uuid,
    -- Where the record stood; null where it never reached its topic.
    source_offset    bigint,
    created_at       timestamptz NOT NULL DEFAULT now(),
    dead_at          timestamptz NOT NULL DEFAULT now(),
    recorded_at      timestamptz,
    first_failed_at  timestamptz,
    source_partition integer,
    attempts         integer     NOT NULL,
    -- How often it died again behind a replay.
    replay_count     integer     NOT NULL DEFAULT 0,
    state            text        NOT NULL DEFAULT 'DEAD',
    source_topic     text        NOT NULL,
    error_class      text        NOT NULL,
    error_stage      text        NOT NULL,
    error_message    text        NOT NULL,
    key              bytea,
    value            bytea,
    headers          json        NOT NULL,
    -- SHA-256 of the value; of no bytes where there is no value.
    value_sha256     bytea       NOT NULL,
    -- Serves: look-ups by id (a UUIDv7), and the list, newest first.
    CONSTRAINT dead_letters_pkey PRIMARY KEY (id, account_id),
    CONSTRAINT dead_letters_state_known CHECK (state IN ('DEAD', 'REPLAYED', 'DISCARDED')),
    CONSTRAINT dead_letters_class_known CHECK (error_class IN
        ('undecodable', 'unknown_schema_version', 'mismatch', 'retries_exhausted', 'rejected', 'refused_by_broker')),
    CONSTRAINT dead_letters_counts_not_negative CHECK (attempts >= 0 AND replay_count >= 0),
    CONSTRAINT dead_letters_value_sha256_length CHECK (octet_length(value_sha256) = 32)
);

-- Serves: a poison record that is delivered again is recorded once. Genuine events are not among them:
-- where a record was a mismatch because a restored database lacked its row, its event may yet die.
CREATE UNIQUE INDEX dead_letters_once
    ON dead_letters (source_topic, source_partition, source_offset, value_sha256, account_id)
    WHERE transaction_id IS NULL;
-- Serves: a genuine event that dies again comes back to its own row.
CREATE UNIQUE INDEX dead_letters_one_per_event ON dead_letters (event_id, account_id)
    WHERE transaction_id IS NOT NULL;
-- Serves: GET /v1/dead-letters?account_id=…, newest first.
CREATE INDEX dead_letters_of_account ON dead_letters (account_id, id DESC);
-- Serves: GET /v1/dead-letters?state=DEAD, and a replay of many of all accounts, oldest first.
CREATE INDEX dead_letters_open ON dead_letters (id) WHERE state = 'DEAD';
-- Serves: a replay of many of one account, oldest first, however many of its letters are closed: the
-- nil account collects all that nobody can read.
CREATE INDEX dead_letters_open_of_account ON dead_letters (account_id, id) WHERE state = 'DEAD';

-- Who did what to a dead letter, when and why; append-only.
CREATE TABLE dead_letter_actions (
    dead_letter_id uuid        NOT NULL,
    account_id     uuid        NOT NULL,
    at             timestamptz NOT NULL DEFAULT now(),
    -- From 1, drawn under the letter's lock.
    action_no      integer     NOT NULL,
    action         text        NOT NULL,
    -- The name of the API key.
    actor          text        NOT NULL,
    reason         text,
    request_id     text        NOT NULL,
    -- Serves: a letter's actions in their order.
    CONSTRAINT dead_letter_actions_pkey PRIMARY KEY (dead_letter_id, account_id, action_no),
    CONSTRAINT dead_letter_actions_known CHECK (action IN ('REPLAY', 'DISCARD'))
);
