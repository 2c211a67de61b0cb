# shellcheck shell=bash
# The local stack's parts, for the scripts beside this folder.
# shellcheck source=infra/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../lib/common.sh"
# shellcheck source=infra/local/lib/ports.sh
. "$root/infra/local/lib/ports.sh"
# shellcheck source=infra/local/lib/process.sh
. "$root/infra/local/lib/process.sh"
# shellcheck source=infra/local/lib/instance.sh
. "$root/infra/local/lib/instance.sh"
# shellcheck source=infra/local/lib/postgres.sh
. "$root/infra/local/lib/postgres.sh"
# shellcheck source=infra/local/lib/kafka.sh
. "$root/infra/local/lib/kafka.sh"
# shellcheck source=infra/local/lib/tests.sh
. "$root/infra/local/lib/tests.sh"
# shellcheck source=infra/local/lib/prerequisites.sh
. "$root/infra/local/lib/prerequisites.sh"
