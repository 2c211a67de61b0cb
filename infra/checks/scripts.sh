#!/usr/bin/env bash
# Runs shellcheck over every script. Optional for people: a machine without it only gets told.
# shellcheck source=infra/lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

if ! have shellcheck; then
    warn "shellcheck is not installed: scripts not checked"
    exit 0
fi
cd "$root"
# The files under lib/ are checked as parts of the scripts that source them: alone, each would be
# told off for the variables of the others.
mapfile -t scripts < <(find infra -name '*.sh' -not -path '*/lib/*' | sort)
shellcheck --check-sourced "${scripts[@]}" .ci/run
say "shellcheck: ${#scripts[@]} scripts, what they source, and .ci/run are clean"
