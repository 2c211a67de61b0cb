# shellcheck shell=bash
# The three services of the dev instance as plain processes, and the stack as a whole.

services=(api publisher worker)
target_dir=${CARGO_TARGET_DIR:-$root/target}

stack_up() {
    require_prerequisites
    build_services
    instance_up
    stack_api migrate || die "the migrations failed"
    local service
    for service in "${services[@]}"; do
        service_up "$service"
    done
    for service in "${services[@]}"; do
        service_wait "$service"
    done
    instance_unlock
}

build_services() {
    say "building the services (release)"
    (cd "$root" && SQLX_OFFLINE=true cargo build --release --locked -p api -p publisher -p worker) ||
        die "the build failed"
}

# stack_api ARGUMENT…: a command of the api that works as the database's owner.
stack_api() {
    env DATABASE_OWNER_URL="postgres://postonce:postonce@127.0.0.1:$postgres_port/postonce" \
        "$target_dir/release/api" "$@"
}

stack_psql() { postgres_psql "$@"; }

stack_more_urls() { :; }

service_pidfile() { printf '%s' "$instance_dir/run/$1.pid"; }

# service_environment SERVICE: one assignment a line. It is .env and the instance's own addresses, and
# never what the calling shell happens to export: after `eval "$(make -s env)"` that would make every
# service the database's owner.
service_environment() {
    dotenv
    printf '%s\n' "DATABASE_URL=postgres://postonce_$1:postonce_$1@127.0.0.1:$postgres_port/postonce" \
        "KAFKA_BROKERS=127.0.0.1:$kafka_port" "API_BIND_ADDR=${api_url#http://}" \
        "ADMIN_BIND_ADDR=$(admin_url "$1" | sed 's|http://||')"
}

# dotenv: the assignments of .env, as they stand (nothing is expanded), without surrounding quotes.
dotenv() {
    local name='([A-Za-z_][A-Za-z0-9_]*)' value="(\"([^\"]*)\"|'([^']*)'|(.*[^[:space:]])?)"
    [[ ! -f $root/.env ]] ||
        sed -nE "s/^[[:space:]]*(export[[:space:]]+)?${name}=${value}[[:space:]]*$/\2=\4\5\6/p" "$root/.env"
}

# service_stamp SERVICE: changes with the program and with its settings.
service_stamp() {
    { stat -c '%i %Y %s' "$target_dir/release/$1" && service_environment "$1"; } | cksum
}

service_up() {
    local service=$1 pidfile stamp_file
    pidfile=$(service_pidfile "$service")
    stamp_file=$instance_dir/run/$service.stamp
    if process_running "$pidfile"; then
        if [[ $(service_stamp "$service") == "$(cat "$stamp_file" 2>/dev/null)" ]]; then
            say "$service runs"
            return
        fi
        say "$service changed: stopping the old one"
        process_stop "$pidfile" 30
    fi
    service_require_ports "$service"
    service_stamp "$service" >"$stamp_file"
    service_start "$service" "$pidfile"
    say "$service started"
}

service_require_ports() {
    require_free_port "$(admin_url "$1" | sed 's/.*://')" "$1's admin server"
    [[ $1 != api ]] || require_free_port "${api_url##*:}" "the API"
}

service_start() {
    local environment
    mapfile -t environment < <(service_environment "$1")
    # From the clone's root it would find .env by itself; there is one reader of that file, above.
    (cd "$instance_dir" && process_start "$2" "$instance_dir/logs/$1.log" \
        env -i "${environment[@]}" "$target_dir/release/$1")
}

service_ready() { curl -sf --max-time 2 "$(admin_url "$1")/ready" >/dev/null; }

service_reasons() { curl -s --max-time 2 "$(admin_url "$1")/ready" || echo 'no answer'; }

service_ready_or_dead() {
    ! process_running "$(service_pidfile "$1")" || service_ready "$1"
}

service_wait() {
    local log=.local/$instance/logs/$1.log
    wait_until 60 service_ready_or_dead "$1" ||
        die "$1 is not ready after 60 s: $(service_reasons "$1") (log: $log)"
    process_running "$(service_pidfile "$1")" || {
        tail -n 20 "$root/$log" >&2
        die "$1 ended as soon as it was started: its last lines are above (log: $log)"
    }
}

# services_down: all are told at once and drain side by side, then each is waited for.
services_down() {
    local service pid
    for service in "${services[@]}"; do
        if pid=$(process_pid "$(service_pidfile "$service")"); then
            kill "$pid" 2>/dev/null || true
        fi
    done
    for service in "${services[@]}"; do
        service_down "$service"
    done
}

service_down() {
    local pidfile
    pidfile=$(service_pidfile "$1")
    [[ -f $pidfile ]] || return 0
    process_stop "$pidfile" 40
    say "$1 stopped"
}

stack_down() {
    instance_lock
    services_down
    instance_down
    verify_nothing_left
}

# verify_nothing_left: what could not be stopped would have ended the script before; this is the
# proof, by looking at the instance anew.
verify_nothing_left() {
    local service
    for service in "${services[@]}"; do
        ! process_running "$(service_pidfile "$service")" || die "$service still runs"
    done
    ! kafka_running || die "Kafka still runs"
    ! postgres_running || die "PostgreSQL still runs"
    say "nothing of the instance '$instance' runs"
}

stack_reset() {
    stack_down
    instance_remove
}

stack_status() {
    local service
    if postgres_running; then
        status_line PostgreSQL running "127.0.0.1:$postgres_port, pid $(postmaster_pid "$postgres_data")"
    else
        status_line PostgreSQL stopped
    fi
    if kafka_running; then
        status_line Kafka running "127.0.0.1:$kafka_port, pid $(process_pid "$kafka_pidfile")"
    else
        status_line Kafka stopped
    fi
    for service in "${services[@]}"; do
        service_status "$service"
    done
}

status_line() { printf '%-11s %-8s %s\n' "$1" "$2" "${3-}"; }

service_status() {
    local pid
    if ! pid=$(process_pid "$(service_pidfile "$1")"); then
        status_line "$1" stopped
    elif service_ready "$1"; then
        status_line "$1" ready "$(admin_url "$1")/metrics, pid $pid"
    else
        status_line "$1" unready "$(service_reasons "$1"), pid $pid"
    fi
}

# stack_logs [PART]: until interrupted.
stack_logs() {
    local files=("$instance_dir"/logs/{api,publisher,worker,kafka,postgres}.log)
    if [[ $1 ]]; then
        files=("$instance_dir/logs/$1.log")
        [[ -e ${files[0]} ]] || die "no log of '$1': api, publisher, worker, kafka or postgres"
    fi
    exec tail -n 20 -F "${files[@]}"
}
