# shellcheck shell=bash
# Several test runs may share the `test` instance. The one that found it down starts it, and the last
# one out stops it; an instance that somebody started by hand is left running.

# test_instance_enter: each run holds a shared lock on `users` for as long as it lives.
test_instance_enter() {
    instance_load test
    instance_lock
    test_marker=$instance_dir/run/started-by-tests
    exec {users_fd}>"$instance_dir/users"
    flock -s "$users_fd"
    trap test_instance_leave EXIT
    if ! { postgres_running && kafka_running; }; then
        : >"$test_marker"
    fi
    instance_up
    instance_unlock
}

test_instance_leave() {
    instance_lock
    # Succeeds only if no other run holds its share.
    if flock -n -x "$users_fd" && [[ -f $test_marker ]]; then
        rm -f "$test_marker"
        instance_down
    fi
}
