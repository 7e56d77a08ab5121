#!/usr/bin/env bash
# Builds tools from pinned Go modules, once, into the user's cache.
#
#   tools.sh MODULE    build the tools of hack/MODULE/go.mod that are not cached; prints the directory with the binaries
set -euo pipefail

[ $# = 1 ] || { echo "usage: $(basename "$0") MODULE" >&2; exit 1; }
tool=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib/processes.sh
. "$here/lib/processes.sh"
# shellcheck source=hack/lib/go-tools.sh
. "$here/lib/go-tools.sh"

build_tools "$1"
echo "$built"
