#!/usr/bin/env bash
# Checks, as root, that a node that was killed (SIGKILL) leaves nothing once `node.sh clean` has run: sysctls, modules, cgroups,
# files and processes.
set -euo pipefail

tool='node check'
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib/processes.sh
. "$here/lib/processes.sh"

key=/proc/sys/kernel/panic # the kubelet sets it to 10
before=$(cat $key)
scratch=$(mktemp -d)
remove+=("$scratch")
trap 'echo "$before" >$key; cleanup' EXIT

modules() { if [ -e /proc/modules ]; then cut -d ' ' -f 1 /proc/modules | sort; fi; }
leftovers() {
  find /sys/fs/cgroup -maxdepth 2 -name "tokensource-node-$node" 2>/dev/null
  find "${TMPDIR:-/tmp}" -maxdepth 1 -name "tokensource-node.$node.*"
  if [ -e /run/tokensource-node/sysctls ]; then echo /run/tokensource-node/sysctls; fi
}

"$here/node.sh" build
loaded=$(modules)
echo 7 >$key
"$here/node.sh" run bash -c "touch '$scratch/ready'; sleep 600" &
node=$!
children+=("$node")
for ((second = 0; second < 300; second++)); do
  if [ -e "$scratch/ready" ] || ! alive "$node"; then break; fi
  sleep 1
done
[ -e "$scratch/ready" ] || die "the node was not ready in time"
[ "$(cat $key)" = 10 ] || die "the kubelet no longer sets kernel.panic: the check needs another sysctl"
kill -KILL "$node"
wait "$node" 2>/dev/null || true
[ -n "$(leftovers)" ] || die "the check sees no leftovers of a killed node"

"$here/node.sh" clean
[ "$(cat $key)" = 7 ] || die "kernel.panic is $(cat $key), before the node it was 7"
[ -z "$(leftovers)" ] || die "left behind: $(leftovers)"
[ "$(modules)" = "$loaded" ] || die "modules are still loaded: $(modules | comm -13 <(echo "$loaded") - | tr '\n' ' ')"
if pgrep -f "tokensource-node.$node" >/dev/null; then die "processes of the node still run"; fi
say "a killed node leaves nothing"
