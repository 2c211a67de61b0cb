# shellcheck shell=bash
# An instance is one PostgreSQL and one Kafka under .local/<name>/, on ports of their own:
#   dev    what `make up` shows, on the ports of the documentation
#   test   `make test`, bench  `make bench`, chaos  `make chaos`: on free ports, so that they never touch a
#          running dev
#
# .local/<name>/env remembers the ports and is at the same time what a shell can source.

instance_load() {
    instance=$1
    case $instance in
        dev | test | bench | chaos) ;;
        *) die "no instance is called '$instance': dev, test, bench or chaos" ;;
    esac
    instance_dir=$root/.local/$instance
    mkdir -p "$instance_dir/logs" "$instance_dir/run"
    instance_ports
}

# instance_ports: those remembered, or those of the documentation for dev, or free ones.
instance_ports() {
    if [[ $instance == dev ]]; then
        postgres_port=15432 kafka_port=19092 controller_port=19093
    elif [[ -f $instance_dir/env ]]; then
        local POSTGRES_PORT KAFKA_PORT KAFKA_CONTROLLER_PORT
        # shellcheck source=/dev/null
        . "$instance_dir/env"
        postgres_port=$POSTGRES_PORT kafka_port=$KAFKA_PORT controller_port=$KAFKA_CONTROLLER_PORT
    else
        instance_take_ports
    fi
}

instance_take_ports() {
    postgres_port=$(free_port)
    kafka_port=$(free_port)
    controller_port=$(free_port)
}

# instance_keep_or_move: a stranger may sit on a remembered port by now. The documented ports of dev
# are worth an error; the others are nobody's business, so they just move.
instance_keep_or_move() {
    [[ $instance != dev ]] || return 0
    if postgres_running || kafka_running; then return 0; fi
    if port_in_use "$postgres_port" || port_in_use "$kafka_port" || port_in_use "$controller_port"; then
        instance_take_ports
    fi
}

instance_write_env() {
    # Written whole and then moved: a reader never sees half a file.
    cat >"$instance_dir/env.new" <<EOF
# Made by infra/local for the instance '$instance'; source it.
export POSTGRES_PORT=$postgres_port
export KAFKA_PORT=$kafka_port
export KAFKA_CONTROLLER_PORT=$controller_port
export DATABASE_URL=$(instance_database_url)
export DATABASE_OWNER_URL=postgres://postonce:postonce@127.0.0.1:$postgres_port/postonce
export KAFKA_BROKERS=127.0.0.1:$kafka_port
export KAFKA_PID_FILE=$instance_dir/run/kafka.pid
EOF
    mv "$instance_dir/env.new" "$instance_dir/env"
}

# instance_database_url: for people it is the owner's; tests and benches make databases of their own
# and need more.
instance_database_url() {
    if [[ $instance == dev ]]; then
        printf 'postgres://postonce:postonce@127.0.0.1:%s/postonce' "$postgres_port"
    else
        printf 'postgres://postgres:postgres@127.0.0.1:%s/postgres' "$postgres_port"
    fi
}

# instance_lock: one script at a time starts or stops things in an instance; the next one waits.
# The lock ends with this script, however it ends; taking it twice is taking it once.
instance_lock() {
    [[ ! ${lock_fd-} ]] || return 0
    exec {lock_fd}>"$instance_dir/lock"
    flock -n "$lock_fd" || {
        warn "waiting for another script that works on instance '$instance'"
        flock "$lock_fd"
    }
}

instance_unlock() {
    exec {lock_fd}>&-
    unset lock_fd
}

instance_up() {
    instance_lock
    instance_keep_or_move
    instance_write_env
    postgres_up
    kafka_up
}

instance_down() {
    instance_lock
    kafka_down
    postgres_down
}

# instance_remove: the data of both, once they are down.
instance_remove() {
    postgres_remove
    rm -rf "$instance_dir"
    say "removed .local/$instance"
}
