# shellcheck shell=bash
# TCP ports on 127.0.0.1: whether one is taken, by whom, and finding free ones.

port_in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# port_holder PORT: the process that listens there, as "name (pid N)", from /proc alone: neither ss
# nor lsof is on every machine.
port_holder() {
    local hex inode link pid
    hex=$(printf '%04X' "$1")
    inode=$(awk -v end=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == end { print $10; exit }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null || true)
    [[ $inode ]] && link=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -print -quit 2>/dev/null || true)
    pid=${link:-}
    pid=${pid#/proc/}
    pid=${pid%%/*}
    if [[ $pid ]]; then
        printf '%s (pid %s)' "$(cat "/proc/$pid/comm")" "$pid"
    else
        printf 'another process'
    fi
}

# require_free_port PORT WHAT: dies with the stranger's name when the port is taken.
require_free_port() {
    ! port_in_use "$1" || die "port $1 on 127.0.0.1, which $2 needs, is in use by $(port_holder "$1")"
}

# free_port: one that nobody listens on, below the range from which the kernel takes the ports of
# outgoing connections, so that none of those can sit on it later.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        port_in_use "$port" || break
    done
    printf '%s' "$port"
}
