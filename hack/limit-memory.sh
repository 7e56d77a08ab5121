#!/usr/bin/env bash
# Runs a program with the memory limit of a pod: MEMORY_LIMIT bytes (default 64M), including pages of the program file. Needs
# root, and the memory controller of cgroup v1 (tested) or v2.
#
#   OPERATOR_WRAPPER=hack/limit-memory.sh make bench SOURCES=10000
set -euo pipefail

group=/sys/fs/cgroup/memory/tokensource-bench limit=memory.limit_in_bytes # v1
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  group=/sys/fs/cgroup/tokensource-bench limit=memory.max # v2
  echo +memory >/sys/fs/cgroup/cgroup.subtree_control
fi
mkdir -p "$group"
echo "${MEMORY_LIMIT:-64M}" >"$group/$limit"
# Cached pages count for the cgroup that read them first, so drop them.
sync
echo 3 >/proc/sys/vm/drop_caches
echo $$ >"$group/cgroup.procs"
exec "$@"
