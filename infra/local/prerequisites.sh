#!/usr/bin/env bash
# Installs what the local stack needs from the system, or says what to install.
# shellcheck source=infra/local/lib/all.sh
. "$(dirname "$0")/lib/all.sh"

require_prerequisites
say "everything that is needed is installed"
