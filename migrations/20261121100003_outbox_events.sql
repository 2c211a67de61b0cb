-- Events waiting to be sent, written in the transaction that makes them true (transactional
-- outbox), and for a while those that were sent.
CREATE TABLE outbox_events (
    -- CACHE 1: a number is drawn when its row is inserted, so a request sent after another's
    -- acknowledgement always has the higher one. The order of an account's events rests on it.
    seq              bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1),
    account_id       uuid        NOT NULL,
    event_id         uuid        NOT NULL,
    aggregate_id     uuid        NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    published_at     timestamptz,
    publish_attempts integer     NOT NULL DEFAULT 0,
    lane             smallint    NOT NULL,
    status           text        NOT NULL DEFAULT 'PENDING',
    topic            text        NOT NULL,
    partition_key    text        NOT NULL,
    aggregate_type   text        NOT NULL,
    event_type       text        NOT NULL,
    -- json, not jsonb: the bytes here are the bytes on the wire, and still queryable.
    payload          json        NOT NULL,
    last_error       text,
    -- Serves: the mark after an acknowledgement, and housekeeping from the oldest row on.
    CONSTRAINT outbox_events_pkey PRIMARY KEY (seq, account_id),
    CONSTRAINT outbox_events_lane_range CHECK (lane BETWEEN 0 AND 63),
    CONSTRAINT outbox_events_status_known CHECK (status IN ('PENDING', 'PUBLISHED')),
    CONSTRAINT outbox_events_published_has_time
        CHECK ((status = 'PUBLISHED') = (published_at IS NOT NULL))
)
-- The table is a queue: it turns over quickly, so its dead rows are swept early and often.
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000,
      autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0);

-- Serves: the publisher's claim (the first pending rows of each of its lanes, in order), and the
-- sampled count and age of what is pending.
CREATE INDEX outbox_events_pending ON outbox_events (lane, seq) WHERE status = 'PENDING';
