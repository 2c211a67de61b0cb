-- One role a service, which may do what the service does and nothing else. They cannot log in until
-- the operator gives them LOGIN and a password (docs/operations.md); migrations run as the owner.
-- Roles belong to the whole cluster, so another database may have made them already, or be making
-- them at this moment.
DO $$
DECLARE
    service_role text;
BEGIN
    FOREACH service_role IN ARRAY ARRAY['postonce_api', 'postonce_publisher', 'postonce_worker'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', service_role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA public TO postonce_api, postonce_publisher, postonce_worker;

-- api: accepts, reads, and changes an account's status. It cannot touch a balance or an entry, and
-- it cannot make an API key (`api keys create` runs as the owner).
GRANT SELECT, INSERT (id, currency) ON accounts TO postonce_api;
GRANT UPDATE (status, updated_at) ON accounts TO postonce_api;
GRANT SELECT, INSERT (id, account_id, amount_cents, currency, type, idempotency_key)
    ON transactions TO postonce_api;
GRANT INSERT (account_id, event_id, aggregate_id, lane, topic, partition_key, aggregate_type,
              event_type, payload) ON outbox_events TO postonce_api;
GRANT SELECT ON ledger_entries TO postonce_api;
GRANT SELECT ON api_keys TO postonce_api;

-- publisher: sends, marks and removes outbox rows; reads transactions to rebuild lost events.
GRANT SELECT, DELETE ON outbox_events TO postonce_publisher;
GRANT INSERT (account_id, event_id, aggregate_id, lane, topic, partition_key, aggregate_type,
              event_type, payload) ON outbox_events TO postonce_publisher;
GRANT UPDATE (status, published_at, publish_attempts, last_error)
    ON outbox_events TO postonce_publisher;
GRANT SELECT ON transactions TO postonce_publisher;

-- worker: posts to the ledger. Nobody may change or delete an entry, or delete an account or a
-- transaction.
GRANT SELECT ON accounts TO postonce_worker;
GRANT UPDATE (balance_cents, entry_count, updated_at) ON accounts TO postonce_worker;
GRANT SELECT ON transactions TO postonce_worker;
GRANT UPDATE (status, failure_reason, processed_at) ON transactions TO postonce_worker;
GRANT SELECT, DELETE, INSERT (event_id, account_id, transaction_id)
    ON processed_events TO postonce_worker;
GRANT SELECT, INSERT (account_id, entry_no, transaction_id, amount_cents, balance_after_cents)
    ON ledger_entries TO postonce_worker;
GRANT INSERT (account_id, event_id, aggregate_id, lane, topic, partition_key, aggregate_type,
              event_type, payload) ON outbox_events TO postonce_worker;
