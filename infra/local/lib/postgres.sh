# shellcheck shell=bash
# PostgreSQL of one instance, from the system's packages.

postgres_version_min=15

# postgres_bindir: the folder of the newest server that is new enough. Debian keeps its servers out
# of PATH, in a folder for each version, as PGDG's packages for Fedora do.
postgres_bindir() {
    local dir version
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/bin /usr/local/bin /usr/local/pgsql/bin; do
        [[ -x $dir/postgres && -x $dir/initdb && -x $dir/pg_ctl && -x $dir/psql ]] || continue
        version=$("$dir/postgres" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')
        ((version >= postgres_version_min)) && printf '%s %s\n' "$version" "$dir"
    done | sort -rn | sed -n '1s/^[0-9]* //p' | grep .
}

# postgres_place: where the data lies and as whom the server runs. PostgreSQL refuses root, and the
# user it runs as instead may not be able to enter the clone's folder (root's home, say): then the
# data lies outside of it, and .local links there.
postgres_place() {
    postgres_link=$instance_dir/postgres
    if [[ -d $postgres_link ]]; then
        postgres_home=$(readlink -f "$postgres_link")
        postgres_user=$(stat -c %U "$postgres_home")
    elif ((EUID == 0)); then
        postgres_home=/var/lib/postonce/$(clone_hash)-$instance
        postgres_user=postgres
        id postgres >/dev/null 2>&1 || postgres_user=postonce
    else
        postgres_home=$postgres_link
        postgres_user=$(id -un)
    fi
    ((EUID == 0)) || [[ $postgres_user == "$(id -un)" ]] ||
        die "instance '$instance' belongs to $postgres_user: work on it as root, or use another clone"
    postgres_data=$postgres_home/data
    postgres_log=$postgres_home/postgres.log
}

# as_postgres COMMAND…: from a folder that this user can enter.
as_postgres() {
    if ((EUID == 0)); then
        (cd / && detached runuser -u "$postgres_user" -- "$@")
    else
        (detached "$@")
    fi
}

# postgres_psql ARGUMENT…: as the superuser, in the database `postonce` unless -d says otherwise.
postgres_psql() {
    PGPASSWORD=postgres "$(postgres_bindir)/psql" -X -q -v ON_ERROR_STOP=1 \
        -h 127.0.0.1 -p "$postgres_port" -U postgres -d postonce "$@"
}

# postmaster_pid DATA: of the server that runs on that folder. Its pid file survives a crash, and the
# pid may be a stranger's by now, so the process must name the folder in its command line.
postmaster_pid() {
    local pid
    read -r pid 2>/dev/null <"$1/postmaster.pid" || return 1
    start_time "$pid" >/dev/null || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$1" || return 1
    printf '%s' "$pid"
}

postgres_running() {
    postgres_place
    postgres_ours && postmaster_pid "$postgres_data" >/dev/null
}

# postgres_ours: data of a clone that was deleted, and cloned again at the same path, carries another
# id. A server may even still run on it.
postgres_ours() { cmp -s "$instance_dir/id" "$postgres_home/id"; }

postgres_up() {
    if postgres_running; then
        say "PostgreSQL runs on port $postgres_port"
    else
        require_free_port "$postgres_port" PostgreSQL
        postgres_make_home
        [[ -d $postgres_data ]] || postgres_init
        postgres_configure
        postgres_start
        say "PostgreSQL started on port $postgres_port"
    fi
    postgres_psql -d postgres -f "$root/infra/postgres/roles.sql" >/dev/null
}

# postgres_make_home: the folder of the data, for the user who will own it.
postgres_make_home() {
    local id_file=$instance_dir/id
    [[ -f $id_file ]] || new_uuid >"$id_file"
    if ((EUID == 0)); then
        id "$postgres_user" >/dev/null 2>&1 ||
            useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "$postgres_user"
    fi
    if [[ -d $postgres_home ]] && ! postgres_ours; then
        say "$postgres_home is left over from a clone that was at this path before"
        postgres_remove
    fi
    [[ -d $postgres_home ]] || postgres_make_empty_home
}

postgres_make_empty_home() {
    mkdir -p "$(dirname "$postgres_home")"
    mkdir "$postgres_home"
    cp "$instance_dir/id" "$postgres_home/id"
    printf '%s\n' "$root" >"$postgres_home/clone"
    ((EUID != 0)) || chown -R "$postgres_user" "$postgres_home"
    [[ $postgres_home == "$postgres_link" ]] || ln -sfn "$postgres_home" "$postgres_link"
    ln -sfn "$postgres_log" "$instance_dir/logs/postgres.log"
}

# postgres_init: into a folder beside the final one, so that an interrupted initdb leaves nothing
# that looks finished.
postgres_init() {
    local new=$postgres_home/data.new password=$postgres_home/superuser-password
    say "creating PostgreSQL's data in $postgres_home"
    rm -rf "$new"
    (umask 077 && echo postgres >"$password")
    ((EUID != 0)) || chown "$postgres_user" "$password"
    as_postgres "$(postgres_bindir)/initdb" --pgdata="$new" --username=postgres --pwfile="$password" \
        --auth=scram-sha-256 --data-checksums --encoding=UTF8 --locale=C >"$instance_dir/logs/initdb.log" 2>&1 ||
        die "initdb failed: see .local/$instance/logs/initdb.log"
    rm -f "$password"
    mv "$new" "$postgres_data"
}

# postgres_configure: the repository's settings are copied (the server's user may not be able to read
# the clone), and what is this instance's own goes beside them.
postgres_configure() {
    cp "$root/infra/postgres/postgresql.conf" "$postgres_data/postonce.conf"
    cat >"$postgres_data/instance.conf" <<EOF
listen_addresses = '127.0.0.1'
port = $postgres_port
# No Unix socket: everything speaks TCP, and a socket's path has a length limit that clones exceed.
unix_socket_directories = ''
cluster_name = 'postonce-$instance'
EOF
    chmod 644 "$postgres_data/postonce.conf" "$postgres_data/instance.conf"
    grep -qx "include 'postonce.conf'" "$postgres_data/postgresql.conf" ||
        printf "include 'postonce.conf'\ninclude 'instance.conf'\n" >>"$postgres_data/postgresql.conf"
}

postgres_start() {
    # Nobody of ours runs here, so a pid file that is left is a crash's; if its pid is another
    # process's by now, the server would refuse to start because of it.
    rm -f "$postgres_data/postmaster.pid"
    as_postgres "$(postgres_bindir)/pg_ctl" start -s -w -t 120 -D "$postgres_data" -l "$postgres_log" || {
        tail -n 20 "$postgres_log" >&2
        die "PostgreSQL did not start: see .local/$instance/logs/postgres.log"
    }
}

# postgres_down: INT is the "fast" shutdown (clients are cut off, nothing is lost), QUIT the
# immediate one (the next start recovers from the WAL).
postgres_down() {
    local pid
    if postgres_running && pid=$(postmaster_pid "$postgres_data"); then
        end_pid "$pid" 30 INT QUIT
        say "PostgreSQL stopped"
    fi
}

# postgres_kill: all of its processes at once, so that nothing is left that could still
# write: a start beside a process of before would be refused.
postgres_kill() {
    local pid pids
    if postgres_running && pid=$(postmaster_pid "$postgres_data"); then
        read -ra pids <"/proc/$pid/task/$pid/children" || true
        kill -s KILL "$pid" "${pids[@]}" 2>/dev/null || true
        for pid in "$pid" "${pids[@]}"; do
            wait_until 30 process_ended "$pid"
        done
    fi
}

# postgres_remove: whatever runs on this data first, which may be a deleted clone's server.
postgres_remove() {
    local pid
    postgres_place
    if pid=$(postmaster_pid "$postgres_data"); then
        end_pid "$pid" 10 INT QUIT
    fi
    [[ ! -e $postgres_home ]] || say "removing $postgres_home"
    rm -rf "$postgres_home"
    [[ ! -L $postgres_link ]] || rm -f "$postgres_link"
}
