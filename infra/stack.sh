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

# choose_engine: that of the running stack, which only `up` may start anew in the other way.
choose_engine() {
    local wanted=native running
    running=$(cat "$engine_file" 2>/dev/null || true)
    if [[ ${POSTONCE_LOCAL-} != 1 ]] && container_engine_answers; then wanted=containers; fi
    if [[ $running && ${POSTONCE_LOCAL-} == 1 && $running != native ]]; then
        die "the stack was started in containers: make down first"
    fi
    engine=${running:-$wanted}
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
choose_engine
load_engine
case $command in
    up) up ;;
    down)
        stack_down
        rm -f "$engine_file"
        ;;
    status) stack_status ;;
    logs) stack_logs "${2-}" ;;
    env) print_env ;;
    seed) seed ;;
    reset) stack_reset ;;
    *) die "usage: stack.sh up|down|status|logs [PART]|env|seed|reset" ;;
esac
