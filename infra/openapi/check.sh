#!/usr/bin/env bash
# Holds the API to its OpenAPI document: openapi-generator makes a client from it without a warning,
# and schemathesis finds nothing in the running service.
#   infra/local/test.sh infra/openapi/check.sh      EXAMPLES=500 for more; arguments go to schemathesis
# shellcheck source=infra/lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

generator_version=7.25.0
schemathesis_version=4.32.5
examples=${EXAMPLES:-200}
work=$root/.local/openapi
here=$root/infra/openapi
mkdir -p "$work"

fetch_generator() {
    generator=$work/openapi-generator-cli-$generator_version.jar
    [[ -f $generator ]] || mvn --batch-mode --quiet dependency:copy -DoutputDirectory="$work" \
        -Dartifact="org.openapitools:openapi-generator-cli:$generator_version"
}

fetch_schemathesis() {
    schemathesis=$work/venv/bin/schemathesis
    [[ $("$schemathesis" --version 2>/dev/null) == *" $schemathesis_version" ]] && return
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet "schemathesis==$schemathesis_version"
}

# The generator's own notice that it takes OpenAPI 3.1 for a beta says nothing of the document.
check_generator() {
    local language log=$work/generator.log
    java -jar "$generator" validate --recommend --input-spec "$root/docs/openapi.json" | tee "$log"
    grep -q 'No validation issues detected' "$log" || die "the document has issues"
    for language in typescript-fetch kotlin csharp; do
        rm -rf "${work:?}/client-$language"
        java -jar "$generator" generate --input-spec "$root/docs/openapi.json" \
            --generator-name "$language" --output "$work/client-$language" >"$log" 2>&1 ||
            die "no $language client can be made: $log"
        if grep -E '\] (WARN|ERROR)' "$log" | grep -v 'OpenAPI 3.1 support is still in beta'; then
            die "the $language client is made with warnings"
        fi
        say "a $language client is made without a warning"
    done
}

# The service over a database of its own, under the role that it has in production.
start_api() {
    local base=${DATABASE_URL%/*} name=postonce_openapi
    psql --quiet "$DATABASE_URL" -c "DROP DATABASE IF EXISTS $name WITH (FORCE)" -c "CREATE DATABASE $name"
    export DATABASE_OWNER_URL=$base/$name
    api=${CARGO_TARGET_DIR:-$root/target}/debug/api
    "$api" migrate
    psql --quiet --set ON_ERROR_STOP=1 "$DATABASE_OWNER_URL" --file "$here/dead_letters.sql"
    DEAD_LETTERS=$(psql --quiet --tuples-only --no-align "$DATABASE_OWNER_URL" \
        -c 'SELECT id FROM dead_letters ORDER BY sha256(id::text::bytea)')
    export DEAD_LETTERS
    key=$("$api" keys create --name schemathesis --scopes read,write,operate)
    DATABASE_URL="$base/$name?options=-c%20role%3Dpostonce_api" API_BIND_ADDR=127.0.0.1:0 \
        ADMIN_BIND_ADDR=127.0.0.1:0 "$api" >"$work/api.log" 2>&1 &
    api_pid=$!
    trap 'kill "$api_pid" 2>/dev/null || true' EXIT
    wait_until 30 grep -q '"server":"api"' "$work/api.log" || die "the api does not start: $work/api.log"
    url=http://$(sed -nE '/"server":"api"/s/.*"addr":"([^"]+)".*/\1/p' "$work/api.log")
    wait_until 30 curl --silent --fail --output /dev/null "$url/ready" || die "the api is not ready"
}

check_service() {
    # It leaves its own records in the folder where it runs.
    (cd "$work" && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here SCHEMATHESIS_HOOKS=hooks \
        "$schemathesis" --config-file "$here/schemathesis.toml" run "$url/openapi.json" \
        --header "Authorization: Bearer $key" --checks all --max-examples "$examples" --no-color "$@")
    if grep '"level":"ERROR"' "$work/api.log"; then
        die "the service logged errors"
    fi
}

cd "$root"
cargo build --quiet --locked --package api
fetch_generator
fetch_schemathesis
check_generator
start_api
check_service "$@"
