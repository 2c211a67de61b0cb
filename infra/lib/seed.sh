# shellcheck shell=bash
# Sample data through the API: accounts in several currencies and about a hundred transactions, most
# of them in one batch, one of them a debit that fails. Ids and idempotency keys are fixed, so a
# second run is a hundred replays and adds nothing.

seed_currencies=(EUR EUR USD GBP CHF JPY)
seed_batch_rounds=15

seed_account() { printf '5eed0000-0000-4000-8000-%012d' "$1"; }

seed() {
    local number
    [[ -s $api_key_file ]] || die "there is no API key: make up comes first"
    for number in "${!seed_currencies[@]}"; do
        api_expect '200 201' api_post /v1/accounts \
            "{\"id\":\"$(seed_account "$number")\",\"currency\":\"${seed_currencies[number]}\"}"
        seed_transaction "$number" CREDIT 250000 "seed-opening-$number"
    done
    say "${#seed_currencies[@]} accounts, each with an opening credit"
    api_expect 207 api_post /v1/transactions/batch "{\"transactions\":[$(seed_items)]}"
    say "a batch of $((seed_batch_rounds * ${#seed_currencies[@]})) credits and debits"
    seed_transaction 0 DEBIT 99999999 seed-too-much
    say "a debit that is more than the account holds"
    wait_until 30 seed_settled || die "the seed's transactions are not all settled after 30 s: see make status"
    seed_print
}

# seed_transaction NUMBER TYPE AMOUNT KEY: new, or the same as before.
seed_transaction() {
    api_expect '200 202' api_post /v1/transactions "$(seed_item "$1" "$2" "$3")" --header "Idempotency-Key: $4"
}

# seed_item NUMBER TYPE AMOUNT [KEY]
seed_item() {
    printf '{"account_id":"%s","type":"%s","amount_cents":%d,"currency":"%s"%s}' \
        "$(seed_account "$1")" "$2" "$3" "${seed_currencies[$1]}" "${4:+,\"idempotency_key\":\"$4\"}"
}

# seed_items: comma-separated; two credits, then a debit, of amounts that look picked by nobody.
seed_items() {
    local round number type comma=
    for ((round = 1; round <= seed_batch_rounds; round++)); do
        type=CREDIT
        ((round % 3 != 0)) || type=DEBIT
        for number in "${!seed_currencies[@]}"; do
            printf '%s' "$comma"
            seed_item "$number" "$type" "$((round * 731 % 4000 + number * 97 + 100))" "seed-batch-$round-$number"
            comma=,
        done
    done
}

seed_settled() {
    [[ $(stack_psql -At -c "SELECT count(*) FROM transactions
        WHERE account_id::text LIKE '5eed0000-%' AND status NOT IN ('PROCESSED', 'FAILED')") == 0 ]]
}

seed_print() {
    echo
    stack_psql -c "SELECT a.id, a.currency, a.balance_cents,
            count(*) FILTER (WHERE t.status = 'PROCESSED') AS processed,
            count(*) FILTER (WHERE t.status = 'FAILED') AS failed
        FROM accounts a JOIN transactions t ON t.account_id = a.id
        WHERE a.id::text LIKE '5eed0000-%' GROUP BY a.id, a.currency, a.balance_cents ORDER BY a.id"
}
