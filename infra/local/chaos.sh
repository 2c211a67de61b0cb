#!/usr/bin/env bash
# The fault suite: builds the services with their crash points and mutations, and runs the suite on the
# instance `chaos`, whose servers it kills; the instance is stopped afterwards if it was not running before.
#   chaos.sh run|mutations|recovery|schedule|selection [OPTION]…      the options: chaos.sh run --help
# shellcheck source=infra/local/lib/all.sh
. "$(dirname "$0")/lib/all.sh"

require_prerequisites
instance_load chaos
chaos_dir=$instance_dir
# Two at a time would kill each other's servers.
exec {running_fd}>"$chaos_dir/running"
flock -n "$running_fd" || die "another fault suite runs on this instance"

say "building the services with crash points, and the suite"
cd "$root"
export SQLX_OFFLINE=true
# In a folder of its own, so that no binary with crash points is ever taken for one without.
target=${CARGO_TARGET_DIR:-$root/target}
cargo build --locked --target-dir "$target" -p api -p publisher -p worker \
    --features api/faults,publisher/faults,worker/faults
mkdir -p "$target/faults"
for service in api publisher worker; do
    cp "$target/debug/$service" "$target/faults/$service.new"
    mv "$target/faults/$service.new" "$target/faults/$service"
done
# The ordinary ones again: what lies in target/debug has no crash points.
cargo build --locked --target-dir "$target" -p api -p publisher -p worker
cargo build --locked --target-dir "$target" -p e2e --bin chaos

instance_lock
if ! { postgres_running && kafka_running; }; then
    trap instance_down EXIT
fi
instance_up
instance_unlock

# shellcheck source=/dev/null
. "$chaos_dir/env"
export POSTONCE_BIN_DIR=$target/faults
export CHAOS_REPORT_DIR=${CHAOS_REPORT_DIR:-$chaos_dir}

# Not exec: the trap that stops the instance would be lost. The lock is not handed down.
(exec {running_fd}>&- && exec "$target/debug/chaos" "$@")
