#!/usr/bin/env bash
# PostgreSQL and Kafka of one instance, without the services.
#   instance.sh up|down|reset|env INSTANCE      INSTANCE: dev, test, bench or chaos
# shellcheck source=infra/local/lib/all.sh
. "$(dirname "$0")/lib/all.sh"

command=${1:-}
instance_load "${2:-}"

case $command in
    up)
        require_prerequisites
        # Started by hand: a test run that ends meanwhile leaves it alone.
        rm -f "$instance_dir/run/started-by-tests"
        instance_up
        ;;
    down) instance_down ;;
    reset)
        instance_down
        instance_remove
        ;;
    env) cat "$instance_dir/env" ;;
    *) die "usage: instance.sh up|down|reset|env dev|test|bench|chaos" ;;
esac
