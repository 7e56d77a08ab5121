#!/usr/bin/env bash
# Checks, as root, that a node that was killed (SIGKILL) leaves nothing once `node.sh clean` has run: sysctls, modules, cgroups,
# files and processes; and that it takes nothing from others, who began to use its modules meanwhile, as Docker would.
set -euo pipefail

tool='node check'
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib/processes.sh
. "$here/lib/processes.sh"

key=/proc/sys/kernel/panic # the kubelet sets it to 10
before=$(cat $key)
scratch=$(mktemp -d)
remove+=("$scratch")
bridge=ts-node-check
trap 'echo "$before" >$key; ip link delete $bridge 2>/dev/null || true; cleanup' EXIT

modules() { if [ -e /proc/modules ]; then cut -d ' ' -f 1 /proc/modules | sort; fi; }
leftovers() {
  find /sys/fs/cgroup -maxdepth 2 -name "tokensource-node-$node" 2>/dev/null
  find "${TMPDIR:-/tmp}" -maxdepth 1 -name "tokensource-node.$node.*"
  if [ -e /run/tokensource-node/sysctls ]; then echo /run/tokensource-node/sysctls; fi
}

# Sets $node.
start_node() {
  rm -f "$scratch/ready"
  "$here/node.sh" run bash -c "touch '$scratch/ready'; sleep 600" &
  node=$!
  for ((second = 0; second < 300; second++)); do
    if [ -e "$scratch/ready" ] || ! alive "$node"; then break; fi
    sleep 1
  done
  [ -e "$scratch/ready" ] || die "the node was not ready in time"
}

"$here/node.sh" build
loaded=$(modules)
echo 7 >$key
start_node
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

start_node
ip link add $bridge type bridge
kill -TERM "$node"
wait "$node" 2>/dev/null || true
[ -d /sys/class/net/$bridge/bridge ] || die "the end of a node removed the bridge of another program"
[ -z "$(leftovers)" ] || die "left behind: $(leftovers)"
ip link delete $bridge
say "a node that ends takes nothing from others"
