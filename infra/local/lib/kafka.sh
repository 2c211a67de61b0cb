# shellcheck shell=bash
# Apache Kafka of one instance, in KRaft mode, from Maven Central.

java_version_min=17

java_command() { printf '%s' "${JAVA_HOME:+$JAVA_HOME/bin/}java"; }

# java_new_enough: reads the version that `java -version` prints between quotes ("17.0.15", "21").
java_new_enough() {
    local version
    version=$("$(java_command)" -version 2>&1 | sed -nE '1s/[^"]*"([0-9]+).*/\1/p') || return 1
    ((${version:-0} >= java_version_min))
}

kafka_libs=$root/.local/kafka-libs

# kafka_libs_current: the jars are shared by all instances and belong to one state of the pom.
kafka_libs_current() { cmp -s "$root/infra/local/kafka/pom.xml" "$kafka_libs/pom.xml"; }

# kafka_fetch: into a new folder that then takes the old one's place, so that an interrupted fetch
# leaves nothing that looks complete.
kafka_fetch() {
    exec {fetch_fd}>"$root/.local/kafka-libs.lock"
    flock "$fetch_fd"
    if ! kafka_libs_current; then
        say "fetching Apache Kafka from Maven Central"
        rm -rf "$kafka_libs.new"
        mvn --batch-mode --file "$root/infra/local/kafka/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$kafka_libs.new" </dev/null >"$kafka_libs.log" 2>&1 || {
            tail -n 20 "$kafka_libs.log" >&2
            die "mvn could not fetch Apache Kafka: see .local/kafka-libs.log"
        }
        cp "$root/infra/local/kafka/pom.xml" "$kafka_libs.new/pom.xml"
        rm -rf "$kafka_libs"
        mv "$kafka_libs.new" "$kafka_libs"
    fi
    exec {fetch_fd}>&-
}

kafka_place() {
    kafka_data=$instance_dir/kafka/data
    kafka_config=$instance_dir/kafka/server.properties
    kafka_log=$instance_dir/logs/kafka.log
    kafka_pidfile=$instance_dir/run/kafka.pid
}

kafka_running() {
    kafka_place
    process_running "$kafka_pidfile"
}

kafka_java() {
    "$(java_command)" -Djava.awt.headless=true -cp "$kafka_libs/*" \
        -Dlog4j2.configurationFile="$root/infra/local/kafka/log4j2.properties" "$@"
}

kafka_up() {
    if kafka_running; then
        say "Kafka runs on port $kafka_port"
        return
    fi
    kafka_end_leftover
    require_free_port "$kafka_port" Kafka
    require_free_port "$controller_port" "Kafka's controller"
    kafka_fetch
    kafka_configure
    kafka_start
    say "Kafka started on port $kafka_port"
}

# kafka_end_leftover: a broker of a clone that was deleted, and cloned again at the same path, still
# runs on files that are gone. Its command line names this very path (as grep's own does).
kafka_end_leftover() {
    local cmdline pid pids=()
    while read -r cmdline; do
        pid=${cmdline#/proc/}
        pids+=("${pid%/cmdline}")
    done < <(grep -lsxzF "$kafka_config" /proc/[0-9]*/cmdline)
    for pid in "${pids[@]}"; do
        [[ $(cat "/proc/$pid/comm" 2>/dev/null) == java ]] || continue
        say 'ending a Kafka that is left over from a clone that was at this path before'
        end_pid "$pid" 10 TERM
    done
}

kafka_configure() {
    # Tests and benches make topics with names of their own and leave them behind: begin without those.
    [[ $instance == dev ]] || rm -rf "$kafka_data"
    mkdir -p "$instance_dir/kafka"
    sed -e "s|@KAFKA_PORT@|$kafka_port|g" -e "s|@CONTROLLER_PORT@|$controller_port|g" \
        -e "s|@DATA@|$kafka_data|g" "$root/infra/local/kafka/server.properties" >"$kafka_config"
    [[ -f $kafka_data/meta.properties ]] || kafka_format
}

kafka_format() {
    local id
    # Kafka wants 16 bytes in base64url without padding as the cluster's id.
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
    # A first character '-' would be read as an option.
    kafka_java kafka.tools.StorageTool format -t "x${id:1}" -c "$kafka_config" \
        >"$instance_dir/logs/kafka-format.log" 2>&1 ||
        die "formatting Kafka's storage failed: see .local/$instance/logs/kafka-format.log"
}

kafka_start() {
    [[ ! -f $kafka_log ]] || mv "$kafka_log" "$kafka_log.1"
    # The serial collector: a small machine shares its cores with this broker, and half a gigabyte is
    # quickly swept (measured: 50 instead of 82 us of CPU a transaction in its first quarter minute).
    process_start "$kafka_pidfile" "$kafka_log" "$(java_command)" -Xmx512m -XX:+UseSerialGC \
        -XX:+ExitOnOutOfMemoryError \
        -Djava.awt.headless=true -Dlog4j2.configurationFile="$root/infra/local/kafka/log4j2.properties" \
        -cp "$kafka_libs/*" kafka.Kafka "$kafka_config"
    wait_until 60 kafka_ready_or_dead
    kafka_running || {
        tail -n 20 "$kafka_log" >&2
        die "Kafka did not start: see .local/$instance/logs/kafka.log"
    }
}

# kafka_ready_or_dead: the port opens before the broker serves, so its own word counts.
kafka_ready_or_dead() {
    ! process_running "$kafka_pidfile" || grep -q 'Kafka Server started' "$kafka_log"
}

kafka_down() {
    if kafka_running; then
        process_stop "$kafka_pidfile" 20
        say "Kafka stopped"
    fi
    rm -f "$kafka_pidfile"
}

# kafka_kill: all of its processes at once.
kafka_kill() {
    local pid
    kafka_place
    if pid=$(process_pid "$kafka_pidfile"); then
        kill -s KILL "$pid" 2>/dev/null || true
        wait_until 30 process_ended "$pid"
    fi
}

# kafka_start_again: on the data that is there.
kafka_start_again() {
    kafka_running || kafka_start
}
