#!/usr/bin/env bash
# The tests, inside the environment that infra/local/test.sh makes.
#   test.sh ARGUMENT…      handed to cargo test, which takes the whole workspace unless told otherwise
# shellcheck source=infra/lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

# The end-to-end tests start the binaries themselves, which `cargo test` builds only for the tests of
# their own package.
cargo build --workspace --bins --locked
cargo test --locked "$@"

# A bounded selection of the fault suite, on an instance of its own, where everything is tested.
[[ $# -gt 0 ]] || infra/local/chaos.sh selection
