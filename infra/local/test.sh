#!/usr/bin/env bash
# Everything the tests need, then a command with the instance's settings; afterwards whatever this
# started is stopped, whether the command succeeded or not.
#   test.sh COMMAND…
# shellcheck source=infra/local/lib/all.sh
. "$(dirname "$0")/lib/all.sh"

require_prerequisites
test_instance_enter
# shellcheck source=/dev/null
. "$instance_dir/env"
# Checked queries compile against the committed .sqlx, so that a build needs no database.
export SQLX_OFFLINE=true

cd "$root"
# Not exec: the trap that stops the instance would be lost. The share in the instance is not handed down:
# a process that a test leaves behind must not keep it.
(exec {users_fd}>&- && exec "$@")
