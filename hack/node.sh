#!/usr/bin/env bash
# Runs a command on a real Kubernetes node on this Linux machine, as root, without Docker and without an internet address:
# etcd, kube-apiserver, kube-controller-manager (all controllers), kube-scheduler, kubelet, kube-proxy, CoreDNS, containerd, runc
# and CNI plugins, built from pinned Go modules.
#
#   node.sh check                                   say what this machine lacks
#   node.sh build                                   build what is not cached
#   node.sh run [--image ARCHIVE]... COMMAND...     start the node, import the images, run COMMAND with KUBECONFIG and the
#                                                   variables NODE_* of node-inside.sh, and stop everything when it ends
#   node.sh clean                                   undo what nodes left that were killed (SIGKILL); `run` does it first
#
# Everything runs in namespaces of its own (mounts, network, processes, cgroups, host name), as in kind: iptables, bridges,
# mounts and processes cannot touch those of this machine, and end with the first process of the namespace, however this script
# ends. What remains are cgroups, files, the sysctls below and kernel modules. They are undone at the end; after SIGKILL by the
# next `run` or `clean`.
#
#   NODE_KEEP_LOGS=DIR   copy the logs of all components there at the end
set -euo pipefail

tool=node
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib/processes.sh
. "$here/lib/processes.sh"
# shellcheck source=hack/lib/go-tools.sh
. "$here/lib/go-tools.sh"

# What the kubelet sets for the whole machine.
sysctls="vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes"
modules="overlay br_netfilter" # if they are not part of the kernel
# With what the kernel loads by itself for bridges, iptables and kube-proxy. Others that were loaded meanwhile are not the node's.
module_names='overlay|bridge|br_netfilter|stp|llc|veth|nfnetlink|x_tables|(xt|nf|nft|ipt|ip6t|iptable|ip6table|ip6?_tables|ip_set)(_.*)?'
# The machine as it was before the first node: `sysctls` with their values, the loaded `modules`, and who used the `network`;
# and a file nodes/PID for each node. In /run, because a restart of the machine undoes the changes too.
state=/run/tokensource-node

check() {
  local command
  for command in iptables conntrack pkg-config unshare ip flock; do
    if ! command -v $command >/dev/null || ! pkg-config --exists libseccomp; then
      die "something is missing; Debian: apt-get install iptables conntrack pkg-config libseccomp-dev util-linux iproute2"
    fi
  done
}

build() {
  local version
  check
  version=$(pinned_version node k8s.io/kubernetes)
  if [ "$version" != "$(pinned_version control-plane k8s.io/kubernetes)" ]; then
    die "hack/node has Kubernetes $version, hack/control-plane another: hack/pin-kubernetes.sh sets both"
  fi
  control_plane=$("$here/control-plane.sh" build)
  build_tools node "2 to 5 minutes on 2 cores"
  node_tools=$built
  build_tools containers "2 to 4 minutes on 2 cores"
  container_tools=$built
  build_tools coredns "2 to 5 minutes on 2 cores"
  dns=$built
}

# runs PID: whether it is a node.sh, and not a process that has got the number of one since.
runs() { grep -qsF node.sh "/proc/$1/cmdline"; }

# ---------------------------------------------------------------------------------------------- sysctls and modules

# locked COMMAND...: for one node at a time.
locked() {
  mkdir -p "$state/nodes"
  exec 9>"$state/lock"
  flock -w 60 9 || die "another node.sh holds $state/lock"
  "$@"
  exec 9>&-
}

loaded_modules() { if [ -e /proc/modules ]; then cut -d ' ' -f 1 /proc/modules | sort; fi; }

# Who uses modules that count no users: without `bridge`, `veth` or a table of rules, devices and rules of that kind are gone.
# Bridges, veth devices, network namespaces and rules of this machine, each a line.
network_users() {
  (
    set +e # what is not there has no users
    find /sys/class/net -mindepth 1 -maxdepth 1 -exec test -d '{}/bridge' \; -print
    find /sys/class/net -mindepth 1 -maxdepth 1 -name 'veth*'
    find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/net' -exec readlink '{}' \;
    find /run/netns /run/docker/netns -type f
    iptables-save | grep '^-A'
    ip6tables-save | grep '^-A'
    nft list tables
    true
  ) 2>/dev/null | sort -u
}

# Modules that nodes had loaded, unless others use them: those that began to use the network meanwhile, such as Docker, may need
# any of them. Those of a network become free when the kernel has removed it.
remove_modules() {
  local attempt module left users
  for ((attempt = 0; attempt < 10; attempt++)); do
    left=$(loaded_modules | comm -13 "$state/modules" - | grep -Ex "$module_names" || true)
    [ -n "$left" ] || return 0
    users=$(network_users | comm -13 "$state/network" -)
    if [ -z "$users" ]; then
      for module in $left; do modprobe --remove "$module" 2>/dev/null || true; done
    fi
    sleep 0.3 # the last processes of the node are users, too
  done
  if [ -n "$users" ]; then
    say "kernel modules stay loaded, because others use the network since: $(tr '\n' ' ' <<<"$users" | cut -c 1-200)"
  fi
}

# Saves sysctls and the list of modules if this is the first node, and loads modules.
save_machine() {
  local key module
  : >"$state/nodes/$$"
  if ! [ -e "$state/sysctls" ]; then
    for key in $sysctls; do
      if [ -r "/proc/sys/$key" ]; then echo "$key $(cat "/proc/sys/$key")"; fi
    done >"$state/sysctls.new"
    loaded_modules >"$state/modules"
    network_users >"$state/network"
    mv "$state/sysctls.new" "$state/sysctls"
  fi
  for module in $modules; do
    if ! [ -e "/sys/module/$module" ] && modprobe --dry-run "$module" 2>/dev/null; then modprobe "$module" || true; fi
  done
}

# Restores them if this was the last node, also if it was another that was killed.
restore_machine() {
  local node key value
  rm -f "$state/nodes/$$"
  for node in "$state"/nodes/*; do
    if runs "${node##*/}"; then return; fi
  done
  if [ -e "$state/sysctls" ]; then
    while read -r key value; do echo "$value" >"/proc/sys/$key" 2>/dev/null || true; done <"$state/sysctls"
  fi
  if [ -e "$state/modules" ] && [ -e "$state/network" ]; then remove_modules; fi
  rm -rf "$state"/nodes/* "$state/sysctls" "$state/modules" "$state/network"
}

# ---------------------------------------------------------------------------------------------- cgroups

# The mount points of the cgroup hierarchies: one (version 2) or one for each controller (version 1).
hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts; }

# The mount point of version 2 if it has the controllers, else nothing: then version 1 has them.
unified() {
  local at
  at=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
  if [ -n "$at" ] && grep -qsw memory "$at/cgroup.controllers"; then echo "$at"; fi
}

make_cgroups() {
  local at file controllers
  for at in $(hierarchies); do
    mkdir -p "$at/$name"
    if [ -e "$at/cpuset.cpus" ] && ! [ -e "$at/cgroup.controllers" ]; then
      for file in cpuset.cpus cpuset.mems; do cat "$at/$file" >"$at/$name/$file"; done # version 1: empty at first
    fi
  done
  at=$(unified)
  [ -n "$at" ] || return 0
  read -r -a controllers <"$at/cgroup.controllers"
  # Each by itself: one that cannot be had for children must not prevent the others.
  for file in "${controllers[@]}"; do echo "+$file" >"$at/cgroup.subtree_control" 2>/dev/null || true; done
  for file in cpu memory pids; do
    grep -qw $file "$at/$name/cgroup.controllers" || die "$at has no controller $file for a node, as in a container: run it outside"
  done
  # The node's processes: a cgroup with processes cannot have controllers for its children, the pods.
  mkdir "$at/$name/init"
}

# remove_cgroups NAME: they are empty, or become so when the kernel has ended their processes.
remove_cgroups() {
  local at attempt
  for at in $(hierarchies); do
    for ((attempt = 0; attempt < 50; attempt++)); do
      [ -d "$at/$1" ] || break
      find "$at/$1" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
    if [ -d "$at/$1" ]; then say "the cgroup $at/$1 could not be removed"; fi
  done
}

# ---------------------------------------------------------------------------------------------- start and stop

# What nodes left that were killed.
remove_leftovers() {
  local at left
  for at in $(hierarchies); do
    for left in "$at"/tokensource-node-*; do
      if [ -d "$left" ] && ! runs "${left##*-}"; then remove_cgroups "$(basename "$left")"; fi
    done
  done
  for left in "${TMPDIR:-/tmp}"/tokensource-node.*.*; do
    if [ -d "$left" ] && ! runs "$(basename "$left" | cut -d . -f 2)"; then rm -rf --one-file-system "$left"; fi
  done
  locked restore_machine
}

as_root() {
  [ "$(uname -s)" = Linux ] || die "a node needs Linux; set KUBECONFIG to use a cluster"
  [ "$(id -u)" = 0 ] || die "a node needs root (sudo -E), or set KUBECONFIG to use a cluster"
}

stop() {
  trap '' INT TERM HUP
  if [ -n "${inside:-}" ]; then
    # unshare ends the first process of the namespace with it, and the kernel all others.
    kill -TERM "$inside" 2>/dev/null || true
    for _ in 1 2 3 4 5 6 7 8 9 10; do alive "$inside" && sleep 0.3; done
    kill -KILL "$inside" 2>/dev/null || true
    wait "$inside" 2>/dev/null || true
  fi
  if [ -n "${NODE_KEEP_LOGS:-}" ] && [ -d "${dir:-}/log" ]; then
    mkdir -p "$NODE_KEEP_LOGS" && cp -r "$dir/log/." "$NODE_KEEP_LOGS"
  fi
  if [ -n "${name:-}" ]; then remove_cgroups "$name"; fi
  if [ -n "${dir:-}" ]; then rm -rf --one-file-system "$dir"; fi
  locked restore_machine
  cleanup
}

run() {
  local images=() status=0 enter
  while [ "${1:-}" = --image ]; do
    images+=("$(realpath "$2")")
    shift 2
  done
  [ $# -gt 0 ] || die "run: a command is missing"
  as_root
  build
  remove_leftovers
  trap stop EXIT
  name=tokensource-node-$$
  dir=$(mktemp -d "${TMPDIR:-/tmp}/tokensource-node.$$.XXXXXX")
  locked save_machine
  make_cgroups
  # A namespace of cgroups begins at the cgroup in which it is made; the processes are below it.
  # shellcheck disable=SC2016 # the inner shell's
  enter='for at in $NODE_HIERARCHIES; do echo $$ >"$at/$NODE_CGROUP/cgroup.procs"; done
    exec unshare --cgroup bash -c '\''
      if [ -n "$NODE_UNIFIED" ]; then echo $$ >"$NODE_UNIFIED/$NODE_CGROUP/init/cgroup.procs"; fi
      exec unshare --mount --net --pid --uts --ipc --fork --kill-child "$@"'\'' bash "$@"'
  NODE_HIERARCHIES=$(hierarchies) NODE_CGROUP=$name NODE_UNIFIED=$(unified) NODE_DIR=$dir NODE_IMAGES="${images[*]:-}" \
    NODE_BIN="$control_plane:$node_tools:$container_tools:$dns" \
    ${leash[@]+"${leash[@]}"} bash -c "$enter" bash "$here/node-inside.sh" "$@" <&0 &
  inside=$!
  wait "$inside" || status=$?
  inside=
  exit $status
}

case ${1:-} in
  check) check ;;
  build) build ;;
  clean)
    as_root
    remove_leftovers
    ;;
  run)
    shift
    run "$@"
    ;;
  *) die "usage: $(basename "$0") check | build | clean | run [--image ARCHIVE]... COMMAND..." ;;
esac
