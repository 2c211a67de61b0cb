#!/usr/bin/env bash
# The whole stack of the `dev` instance: what `make up` and its companions call. With a container
# engine it runs infra/compose.yaml, without one (or with POSTONCE_LOCAL=1) infra/local.
#   stack.sh up|down|status|logs [PART]|env|seed|reset
# shellcheck source=infra/local/lib/all.sh
. "$(dirname "$0")/local/lib/all.sh"
# shellcheck source=infra/lib/api.sh
. "$root/infra/lib/api.sh"
# shellcheck source=infra/lib/journey.sh
. "$root/infra/lib/journey.sh"
# shellcheck source=infra/lib/seed.sh
. "$root/infra/lib/seed.sh"

instance_load dev
engine_file=$instance_dir/engine

container_engine_answers() {
    have docker && timeout 10 docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

# choose_engine COMMAND: the first `up` decides, and the choice stays with the data until `reset`.
# Before it there is nothing in containers that could be this clone's.
choose_engine() {
    engine=native
    if [[ -f $engine_file ]]; then
        engine=$(<"$engine_file")
        [[ $engine == native || ${POSTONCE_LOCAL-} != 1 ]] ||
            die "this clone's stack lives in containers: make reset first"
    elif [[ $1 == up && ${POSTONCE_LOCAL-} != 1 ]] && container_engine_answers; then
        engine=containers
    fi
}

load_engine() {
    if [[ $engine == containers ]]; then
        # shellcheck source=infra/lib/containers.sh
        . "$root/infra/lib/containers.sh"
    else
        # shellcheck source=infra/local/lib/services.sh
        . "$root/infra/local/lib/services.sh"
    fi
}

up() {
    printf '%s\n' "$engine" >"$engine_file"
    stack_up
    ensure_api_key
    journey
    print_urls
}

command=${1:-}
choose_engine "$command"
load_engine
case $command in
    up) up ;;
    down) stack_down ;;
    status) stack_status ;;
    logs) stack_logs "${2-}" ;;
    env) print_env ;;
    seed) seed ;;
    reset) stack_reset ;;
    *) die "usage: stack.sh up|down|status|logs [PART]|env|seed|reset" ;;
esac
