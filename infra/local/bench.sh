#!/usr/bin/env bash
# Builds the services and the benchmark, and runs it on the instance `bench`, which is stopped
# afterwards if it was not running before.
#   bench.sh run|growth [OPTION]…      the options: bench.sh run --help
# shellcheck source=infra/local/lib/all.sh
. "$(dirname "$0")/lib/all.sh"

case ${1-} in
    run | growth) ;;
    *) die "usage: bench.sh run|growth [OPTION]…" ;;
esac
needs+=(wrk)
require_prerequisites

instance_load bench
bench_dir=$instance_dir
# Two at a time would measure each other.
exec {running_fd}>"$bench_dir/running"
flock -n "$running_fd" || die "another benchmark runs on this instance"

say "building the services and the benchmark (release)"
cd "$root"
# The services by themselves, as `make up` builds them: together with the benchmark their dependencies
# would have other features, and each of the two would build all of them anew behind the other.
export SQLX_OFFLINE=true
cargo build --release --locked -p api -p publisher -p worker
cargo build --release --locked -p bench

instance_lock
if ! { postgres_running && kafka_running; }; then
    trap instance_down EXIT
fi
instance_up
instance_unlock

# shellcheck source=/dev/null
. "$bench_dir/env"
export BENCH_REPORT_DIR=${BENCH_REPORT_DIR:-$bench_dir}
KAFKA_VERSION=$(sed -n "/<artifactId>kafka_2/{n;s/[^0-9.]//g;p}" infra/local/kafka/pom.xml)
export KAFKA_VERSION
# The disk whose flushes count is PostgreSQL's; only root may write there if the server is another user's.
[[ ! -w $postgres_home ]] || export BENCH_DISK_DIR=${BENCH_DISK_DIR:-$postgres_home}

# Not exec: the trap that stops the instance would be lost. The lock is not handed down.
(exec {running_fd}>&- && exec "${CARGO_TARGET_DIR:-$root/target}/release/bench" "$@")
