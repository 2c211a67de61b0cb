#!/usr/bin/env bash
# The checked queries' offline data in .sqlx, against a freshly migrated database.
#   sqlx.sh write|check       inside the environment that infra/local/test.sh makes
# shellcheck source=infra/lib/common.sh
. "$(dirname "$0")/../lib/common.sh"
# shellcheck source=infra/lib/tools.sh
. "$root/infra/lib/tools.sh"

require_tool sqlx-cli 0.9.0 --no-default-features --features postgres
# Through cargo, which `prepare` insists on.
sqlx() { PATH=$tools_dir/bin:$PATH cargo sqlx "$@"; }

cd "$root"
# A database of its own, beside those of the tests: what the migrations make and nothing else.
DATABASE_URL=${DATABASE_URL%/*}/postonce_checked_queries
export DATABASE_URL
unset SQLX_OFFLINE
sqlx database drop -y --force >/dev/null
sqlx database create
sqlx migrate run --source migrations >/dev/null

# write: `prepare` empties .sqlx before it compiles; code that does not compile must not cost the data.
write() {
    local before
    before=$(mktemp -d)
    cp -a .sqlx "$before"
    sqlx prepare --workspace -- --all-targets --locked || {
        cp -a "$before/.sqlx/." .sqlx
        rm -rf "$before"
        die "the checked queries could not be prepared: .sqlx is as it was before"
    }
    rm -rf "$before"
}

case ${1:-} in
    write) write ;;
    check) sqlx prepare --workspace --check -- --all-targets --locked ;;
    *) die "usage: sqlx.sh write|check" ;;
esac
