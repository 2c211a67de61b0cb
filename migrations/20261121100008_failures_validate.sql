-- Validates what the file before added without a look at the rows that were there.
ALTER TABLE accounts VALIDATE CONSTRAINT accounts_parked_count_not_negative;
ALTER TABLE transactions VALIDATE CONSTRAINT transactions_reason_fits_status;
ALTER TABLE outbox_events VALIDATE CONSTRAINT outbox_events_payload_or_dead_letter;
