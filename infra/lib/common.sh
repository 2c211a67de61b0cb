# shellcheck shell=bash
# What every script under infra/ starts with: strict mode, the clone's root, and how to speak.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# Exported, so that the smallest helper finds the clone whatever folder it is called from.
export root

say() { printf '==> %s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
    warn "error: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# wait_until SECONDS COMMAND…: repeats the command until it succeeds; fails when the time is over.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# new_uuid: a random UUID, straight from the kernel.
new_uuid() { cat /proc/sys/kernel/random/uuid; }

# clone_hash: tells clones apart where their paths would be too long or not allowed.
clone_hash() { printf '%s' "$root" | sha256sum | cut -c1-12; }
