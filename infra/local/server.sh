#!/usr/bin/env bash
# Kills one server of an instance, all of its processes at once, or starts it again on the data that is
# there. The fault suite's hands; it never touches dev.
#   server.sh kill|start postgres|kafka chaos|test
# shellcheck source=infra/local/lib/all.sh
. "$(dirname "$0")/lib/all.sh"

usage='usage: server.sh kill|start postgres|kafka chaos|test'
case ${3-} in
    chaos | test) instance_load "$3" ;;
    *) die "$usage" ;;
esac
# PostgreSQL and Kafka may be started beside each other, but not one of them twice.
exec {server_fd}>"$instance_dir/run/${2-}.lock"
flock "$server_fd"

case "${1-} ${2-}" in
    'kill postgres') postgres_kill ;;
    'kill kafka') kafka_kill ;;
    'start postgres') postgres_running || postgres_start ;;
    'start kafka') kafka_start_again ;;
    *) die "$usage" ;;
esac
