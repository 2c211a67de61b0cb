#!/usr/bin/env bash
# docs/openapi.json, made from the code by `api openapi`.
#   openapi.sh write|check
# shellcheck source=infra/lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

cd "$root"
document=docs/openapi.json
made=$(mktemp)
trap 'rm -f "$made"' EXIT
SQLX_OFFLINE=true cargo run --quiet --locked --package api -- openapi >"$made"

case ${1:-} in
    write)
        cat "$made" >"$document"
        say "$document written"
        ;;
    check)
        diff -u "$document" "$made" || die "$document is not what the code says: run make openapi"
        say "$document is current"
        ;;
    *) die "usage: openapi.sh write|check" ;;
esac
