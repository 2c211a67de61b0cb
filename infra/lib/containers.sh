# shellcheck shell=bash
# The stack in containers: the same functions as infra/local/lib/services.sh, over infra/compose.yaml.

# Each clone is a project of its own, so that none stops another's containers.
compose() {
    docker compose --project-name "postonce-$(clone_hash)" --file "$root/infra/compose.yaml" "$@"
}

stack_up() {
    say "building and starting the containers"
    compose up --build --detach --wait --wait-timeout 600 </dev/null ||
        die "the containers did not become healthy: see make status and make logs"
}

# stack_api ARGUMENT…: a command of the api that works as the database's owner, in a container of its
# own that goes away again. Only the command's own output may be printed: it may be a key.
stack_api() { compose run --rm --no-deps --quiet-pull -T migrate api "$@" </dev/null; }

stack_psql() { compose exec -T postgres psql -X -q -v ON_ERROR_STOP=1 -U postgres -d postonce "$@"; }

stack_more_urls() {
    printf '  %-20s %s\n' Prometheus http://127.0.0.1:9090 Grafana http://127.0.0.1:3000 \
        Jaeger http://127.0.0.1:16686
}

stack_down() {
    compose down --remove-orphans
    [[ -z $(compose ps --quiet) ]] || die "some containers still run: see make status"
}

stack_reset() {
    compose down --remove-orphans --volumes
    rm -rf "$instance_dir"
    say "removed the containers, their volumes and .local/dev"
}

stack_status() { compose ps --all; }

stack_logs() {
    if [[ ${1/kafka/redpanda} ]]; then
        compose logs --follow --tail 20 "${1/kafka/redpanda}"
    else
        compose logs --follow --tail 20
    fi
}
