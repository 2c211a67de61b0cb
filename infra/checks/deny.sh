#!/usr/bin/env bash
# Licences, bans and sources of the dependencies, by the rules of deny.toml. Not advisories: they
# need a database from outside, and would fail a build that nobody changed.
# shellcheck source=infra/lib/common.sh
. "$(dirname "$0")/../lib/common.sh"
# shellcheck source=infra/lib/tools.sh
. "$root/infra/lib/tools.sh"

require_tool cargo-deny 0.20.2
cd "$root"
"$tools_dir/bin/cargo-deny" --locked --workspace check bans licenses sources
