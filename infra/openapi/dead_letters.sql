-- Dead letters of every kind, as worker and publisher would have written them: over the API nobody can
-- make one.
INSERT INTO accounts (id, currency) VALUES ('01920f4e-6c00-7000-8000-000000000001', 'EUR');

INSERT INTO transactions (id, account_id, amount_cents, currency, type, idempotency_key, status,
                          failure_reason, processed_at)
SELECT gen_random_uuid(), accounts.id, n, 'EUR', 'CREDIT', 'openapi-' || n,
       CASE WHEN n % 2 = 0 THEN 'PROCESSING' ELSE 'FAILED' END,
       CASE WHEN n % 2 = 0 THEN 'dead_lettered' ELSE 'insufficient_funds' END,
       CASE WHEN n % 2 = 1 THEN now() END
  FROM accounts, generate_series(1, 400) n;

-- Genuine events that wait for somebody, and copies of rejections.
INSERT INTO dead_letters (id, account_id, event_id, transaction_id, source_topic, source_partition,
                          source_offset, recorded_at, first_failed_at, attempts, error_class, error_stage,
                          error_message, key, value, headers, value_sha256)
SELECT gen_random_uuid(), account_id, id, id, 'transactions', 0, amount_cents, now(), now(), 6,
       CASE status WHEN 'FAILED' THEN 'rejected' ELSE 'retries_exhausted' END, 'apply', 'P0001: no',
       account_id::text::bytea, '{"schema_version":1}', json_build_array(json_build_array('ce_id', id)),
       sha256('{"schema_version":1}')
  FROM transactions;

-- Bytes that are no event, and results that no broker took.
INSERT INTO dead_letters (id, account_id, source_topic, source_partition, source_offset, attempts,
                          error_class, error_stage, error_message, key, value, headers, value_sha256)
SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000000', 'transactions', 1, n, 1, 'undecodable',
       'decode', 'header ce_id is missing', NULL, '\xff00',
       '[["a", {"base64": "/wA="}], ["b", null], ["c", "text"]]', sha256('\xff00')
  FROM generate_series(1, 200) n;

INSERT INTO dead_letters (id, account_id, event_id, source_topic, attempts, error_class, error_stage,
                          error_message, key, value, headers, value_sha256)
SELECT gen_random_uuid(), accounts.id, gen_random_uuid(), 'transactions.results', 1, 'refused_by_broker',
       'publish', 'Broker: Message size too large', accounts.id::text::bytea, NULL, '[]', sha256('')
  FROM accounts, generate_series(1, 100);
