# shellcheck shell=bash
# One sample transaction, from its acceptance to the ledger, with the time of each step.

journey() {
    local account key published_file published_at
    account=$(new_uuid)
    key=sample-$(new_uuid)
    api_expect 201 api_post /v1/accounts "{\"id\":\"$account\",\"currency\":\"EUR\"}"
    published_file=$(mktemp)
    journey_watch_outbox "$account" >"$published_file" &
    api_expect 202 api_post /v1/transactions \
        "{\"account_id\":\"$account\",\"amount_cents\":1999,\"currency\":\"EUR\",\"type\":\"CREDIT\"}" \
        --header "Idempotency-Key: $key"
    wait_until 30 journey_ended "$account" "$key" || true
    wait $! || true
    published_at=$(grep . "$published_file") || published_at=NULL::timestamptz
    rm -f "$published_file"
    journey_print "$account" "$key"
}

journey_ended() { [[ $(journey_row "$1" "$2" "t.processed_at IS NOT NULL") == t ]]; }

# journey_watch_outbox ACCOUNT: prints when the event of the account's first transaction had left the
# outbox, or was marked there. A row usually leaves at the broker's acknowledgement (OUTBOX_RETENTION is
# 0), so nobody can be asked for that time afterwards. It looks each millisecond, for at most 30 s, and prints nothing then.
journey_watch_outbox() {
    stack_psql -At -v account="$1" <<'EOF' | grep -o "'.*'::timestamptz" || true
SET enable_seqscan = off;
SELECT set_config('journey.account', :'account', false);
DO $$
DECLARE
    event uuid;
BEGIN
    FOR i IN 1..30000 LOOP
        SELECT id INTO event FROM transactions
         WHERE account_id = current_setting('journey.account')::uuid LIMIT 1;
        IF event IS NOT NULL AND NOT EXISTS
           (SELECT FROM outbox_events WHERE status = 'PENDING' AND event_id = event) THEN
            PERFORM set_config('journey.published', quote_literal(clock_timestamp()) || '::timestamptz', false);
            RETURN;
        END IF;
        PERFORM pg_sleep(0.001);
    END LOOP;
END
$$;
SELECT current_setting('journey.published', true);
EOF
}

# journey_row ACCOUNT KEY EXPRESSIONS: of the transaction and its ledger entry.
journey_row() {
    stack_psql -At -F ' ' -v account="$1" -v key="$2" <<EOF
SELECT $3
FROM transactions t
LEFT JOIN ledger_entries e ON e.transaction_id = t.id AND e.account_id = t.account_id
WHERE t.account_id = :'account' AND t.idempotency_key = :'key';
EOF
}

journey_print() {
    local id status entry balance row
    row=$(journey_row "$1" "$2" "t.id, t.status, coalesce(e.entry_no, 0), coalesce(e.balance_after_cents, 0)")
    read -r id status entry balance <<<"$row"
    echo
    echo "A sample transaction's journey: CREDIT of 1999 EUR cents, ${id:-unknown}"
    journey_step "$1" "$2" accepted t.created_at '202, the row and its event in one commit'
    journey_step "$1" "$2" published "$published_at" 'acknowledged by the broker'
    journey_step "$1" "$2" applied t.processed_at "$status, ledger entry $entry, balance $balance cents"
    [[ $status == PROCESSED ]] ||
        die "the sample transaction did not reach the ledger within 30 s: see make status and make logs"
}

# journey_step ACCOUNT KEY NAME COLUMN REMARK
journey_step() {
    local time after row
    row=$(journey_row "$1" "$2" "coalesce(to_char($4, 'HH24:MI:SS.US'), '-'),
        coalesce(round(extract(epoch FROM $4 - t.created_at) * 1000, 1)::text, '-')")
    read -r time after <<<"$row"
    printf '  %-10s %-15s UTC  %+8s ms   %s\n' "$3" "$time" "+$after" "$5"
}

print_urls() {
    local service
    echo
    printf '  %-20s %s\n' API "$api_url" 'try it' "$api_url/docs"
    for service in api publisher worker; do
        printf '  %-20s %s\n' "$service's metrics" "$(admin_url "$service")/metrics"
    done
    stack_more_urls
    echo
    # shellcheck disable=SC2016 # Shown to the reader, who is to type it.
    echo 'For psql, kcat and curl: eval "$(make -s env)"'
}
