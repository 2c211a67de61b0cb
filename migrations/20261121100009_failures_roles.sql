-- What the services may do with parked events and dead letters.

-- worker: parks, retries and gives up.
GRANT UPDATE (parked_count) ON accounts TO postonce_worker;
GRANT SELECT, DELETE, INSERT (account_id, event_id, source_topic, source_partition, source_offset,
                              recorded_at, key, value, headers, attempts, next_attempt_at,
                              first_failed_at, last_error),
      UPDATE (attempts, next_attempt_at, first_failed_at, last_error)
    ON parked_events TO postonce_worker;
GRANT SELECT, INSERT, UPDATE (state, dead_at, first_failed_at, attempts, replay_count, error_class,
                              error_stage, error_message)
    ON dead_letters TO postonce_worker;
GRANT INSERT (dead_letter_id) ON outbox_events TO postonce_worker;

-- publisher: sends dead letters and their replays, and makes a dead letter of what the broker refuses
-- for good. Without processed_at it can neither make a transaction final nor undo that: a CHECK wants
-- the time with the final state.
GRANT SELECT, INSERT, UPDATE (state, dead_at, first_failed_at, attempts, replay_count, error_class,
                              error_stage, error_message)
    ON dead_letters TO postonce_publisher;
GRANT INSERT (dead_letter_id) ON outbox_events TO postonce_publisher;
GRANT INSERT (event_id, account_id, transaction_id), SELECT ON processed_events TO postonce_publisher;
GRANT UPDATE (status, failure_reason) ON transactions TO postonce_publisher;
-- Which transactions wait for a retry, so that `publisher resend` leaves them alone.
GRANT SELECT ON parked_events TO postonce_publisher;

-- api: lists, replays and discards dead letters.
GRANT SELECT, UPDATE (state) ON dead_letters TO postonce_api;
GRANT SELECT, INSERT (dead_letter_id, account_id, action_no, action, actor, reason, request_id)
    ON dead_letter_actions TO postonce_api;
GRANT SELECT, DELETE ON processed_events TO postonce_api;
GRANT UPDATE (status, failure_reason, processed_at) ON transactions TO postonce_api;
GRANT INSERT (dead_letter_id) ON outbox_events TO postonce_api;
