# shellcheck shell=bash
# Speaking to the running API: its addresses and the local key.

api_url=http://127.0.0.1:8080
dev_dir=$root/.local/dev
api_key_file=$dev_dir/api-key

# admin_url SERVICE: /health, /ready and /metrics.
admin_url() {
    case $1 in
        api) echo http://127.0.0.1:9101 ;;
        publisher) echo http://127.0.0.1:9102 ;;
        worker) echo http://127.0.0.1:9103 ;;
    esac
}

# api_call PATH CURL-ARGUMENT…: prints the answer's body and then, on a line of its own, its status.
# The key goes in through a file descriptor, so that no list of processes shows it.
api_call() {
    local path=$1
    shift
    curl -sS --max-time 30 --config <(printf 'header = "Authorization: Bearer %s"\n' "$(<"$api_key_file")") \
        --write-out '\n%{http_code}\n' "$api_url$path" "$@"
}

# api_post PATH JSON CURL-ARGUMENT…
api_post() {
    local path=$1 body=$2
    shift 2
    api_call "$path" --header 'Content-Type: application/json' --data "$body" "$@"
}

# api_expect STATUSES COMMAND…: runs an api_call; anything but one of the statuses ends the script
# with the answer. Leaves the status in `api_status`.
api_expect() {
    local expected=" $1 " answer
    shift
    answer=$("$@") || die "the API at $api_url does not answer"
    api_status=${answer##*$'\n'}
    [[ $expected == *" $api_status "* ]] ||
        die "the API answered $api_status instead of${expected% }: ${answer%$'\n'*}"
}

api_key_works() {
    [[ -s $api_key_file ]] && [[ $(api_call '/v1/accounts?limit=1' --output /dev/null) == *200 ]]
}

# ensure_api_key: made once and kept. A new one is made when the database no longer knows the old
# one; names are never used twice, so each carries the time.
ensure_api_key() {
    ! api_key_works || return 0
    (
        umask 077
        stack_api keys create --name "local-$(date +%Y%m%dT%H%M%S)" --scopes read,write,operate \
            >"$api_key_file.new" 2>"$dev_dir/logs/api-key.log"
    ) || die "making an API key failed: $(cat "$dev_dir/logs/api-key.log")"
    mv "$api_key_file.new" "$api_key_file"
    say "made an API key: .local/dev/api-key"
}

# print_env: what `make env` prints, the same for both ways of running the stack.
print_env() {
    local service
    cat <<EOF
export DATABASE_URL=postgres://postonce:postonce@127.0.0.1:15432/postonce
export DATABASE_OWNER_URL=postgres://postonce:postonce@127.0.0.1:15432/postonce
export KAFKA_BROKERS=127.0.0.1:19092
export API_URL=$api_url
EOF
    for service in api publisher worker; do
        echo "export ${service^^}_ADMIN_URL=$(admin_url "$service")"
    done
    if [[ -s $api_key_file ]]; then
        echo "export API_KEY=$(cat "$api_key_file")"
    else
        warn "no API key yet: run make up first"
    fi
}
