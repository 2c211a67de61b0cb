# shellcheck shell=bash
# Processes that outlive the script that starts them, and are found again later.
#
# A pid alone may have been given to somebody else since (after a crash, a kill -9, a reboot), so a
# pid file holds "PID START-TIME", and a process is ours only if both still match.

# start_time PID: when it started, in clock ticks since boot; fails if there is none, or a zombie.
start_time() {
    local stat fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The second field is the command in parentheses and may hold blanks: count from its end.
    read -ra fields <<<"${stat##*) }"
    [[ ${fields[0]} != Z ]] || return 1
    printf '%s' "${fields[19]}"
}

# process_pid PIDFILE: the pid of the process that the file means; fails if it no longer runs.
process_pid() {
    local pid started
    read -r pid started 2>/dev/null <"$1" || return 1
    [[ $(start_time "$pid") == "$started" ]] || return 1
    printf '%s' "$pid"
}

process_running() { process_pid "$1" >/dev/null; }

# detached COMMAND…: takes this process's place and gives up every stream but the first three: locks,
# which would be held for as long as the command runs, and pipes that somebody reads to their end.
detached() {
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        ((fd <= 2)) || exec {fd}>&-
    done
    exec "$@"
}

# process_start PIDFILE LOG COMMAND…: in a session of its own and without our streams, so that it
# neither dies with `make` nor keeps a pipe behind it open.
process_start() {
    local pidfile=$1 log=$2
    shift 2
    detached setsid "$@" </dev/null >>"$log" 2>&1 &
    printf '%s %s\n' "$!" "$(start_time "$!" || echo gone)" >"$pidfile"
    disown
}

# process_ended PID
process_ended() { ! start_time "$1" >/dev/null; }

# pid_gone PID STARTED
pid_gone() { [[ $(start_time "$1") != "$2" ]]; }

# end_pid PID SECONDS SIGNAL…: the signals one after another, each with that long to take effect;
# the last resort is KILL, which is always tried.
end_pid() {
    local pid=$1 seconds=$2 started signal
    shift 2
    started=$(start_time "$pid") || return 0
    for signal in "$@" KILL; do
        kill -s "$signal" "$pid" 2>/dev/null || true
        wait_until "$seconds" pid_gone "$pid" "$started" && return 0
    done
    die "process $pid does not end, not even by SIGKILL"
}

# process_stop PIDFILE SECONDS
process_stop() {
    local pid
    if pid=$(process_pid "$1"); then
        end_pid "$pid" "$2" TERM
    fi
    rm -f "$1"
}
