#!/usr/bin/env bash
# Runs a command on a real Kubernetes node on this Linux machine, as root, without Docker and without an internet address:
# etcd, kube-apiserver, kube-controller-manager (all controllers), kube-scheduler, kubelet, kube-proxy, containerd, runc and CNI
# plugins, built from pinned Go modules.
#
#   node.sh check                                   say what this machine lacks
#   node.sh build                                   build what is not cached
#   node.sh run [--image ARCHIVE]... COMMAND...     start the node, import the images, run COMMAND with KUBECONFIG and the
#                                                   variables NODE_* of node-inside.sh, and stop everything when it ends
#
# Everything runs in namespaces of its own (mounts, network, processes, cgroups, host name), as in kind: iptables, bridges,
# mounts and processes cannot touch those of this machine, and end with the first process of the namespace, however this script
# ends. What remains are cgroups, files and five sysctls; they are restored at the end, or by the next start.
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

check() {
  local command
  for command in iptables conntrack pkg-config unshare ip; do
    if ! command -v $command >/dev/null || ! pkg-config --exists libseccomp; then
      die "something is missing; Debian: apt-get install iptables conntrack pkg-config libseccomp-dev util-linux iproute2"
    fi
  done
}

build() {
  check
  control_plane=$("$here/control-plane.sh" build)
  build_tools node "2 to 5 minutes on 2 cores"
  node_tools=$built
  build_tools containers "2 to 4 minutes on 2 cores"
  container_tools=$built
}

# The mount points of the cgroup hierarchies: one (version 2) or one for each controller (version 1).
hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts; }

make_cgroups() {
  local at file controllers
  for at in $(hierarchies); do
    mkdir -p "$at/$name"
    if [ -e "$at/cpuset.cpus" ]; then
      for file in cpuset.cpus cpuset.mems; do cat "$at/$file" >"$at/$name/$file"; done # version 1: empty at first
    fi
    if [ -e "$at/cgroup.subtree_control" ]; then
      read -r -a controllers <"$at/cgroup.controllers" || true # empty, where version 1 has them
      for file in "${controllers[@]}"; do echo "+$file" >"$at/cgroup.subtree_control" 2>/dev/null || true; done
    fi
  done
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

# Cgroups and files of runs that were killed together with their cleanup.
remove_leftovers() {
  local at left
  for at in $(hierarchies); do
    for left in "$at"/tokensource-node-*; do
      if [ -d "$left" ] && ! alive "${left##*-}"; then remove_cgroups "$(basename "$left")"; fi
    done
  done
  for left in "${TMPDIR:-/tmp}"/tokensource-node.*.*; do
    if [ -d "$left" ] && ! alive "$(basename "$left" | cut -d . -f 2)"; then rm -rf --one-file-system "$left"; fi
  done
}

stop() {
  local key
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
  if [ -f "${dir:-}/sysctls" ]; then
    while read -r key value; do echo "$value" >"/proc/sys/$key" 2>/dev/null || true; done <"$dir/sysctls"
  fi
  if [ -n "${dir:-}" ]; then rm -rf --one-file-system "$dir"; fi
  cleanup
}

run() {
  local images=() key status=0
  while [ "${1:-}" = --image ]; do
    images+=("$(realpath "$2")")
    shift 2
  done
  [ $# -gt 0 ] || die "run: a command is missing"
  [ "$(uname -s)" = Linux ] || die "a node needs Linux; set KUBECONFIG to use a cluster"
  [ "$(id -u)" = 0 ] || die "a node needs root (sudo -E), or set KUBECONFIG to use a cluster"
  build
  remove_leftovers
  trap stop EXIT
  name=tokensource-node-$$
  dir=$(mktemp -d "${TMPDIR:-/tmp}/tokensource-node.$$.XXXXXX")
  for key in $sysctls; do
    if [ -r "/proc/sys/$key" ]; then echo "$key $(cat "/proc/sys/$key")" >>"$dir/sysctls"; fi
  done
  for key in overlay br_netfilter; do modprobe $key 2>/dev/null || true; done # else they are part of the kernel
  make_cgroups
  # shellcheck disable=SC2016 # $$ is the inner shell's
  NODE_DIR=$dir NODE_IMAGES="${images[*]:-}" NODE_BIN="$control_plane:$node_tools:$container_tools" \
    ${leash[@]+"${leash[@]}"} bash -c 'for at in '"$(hierarchies | tr '\n' ' ')"'; do echo $$ >"$at/'"$name"'/cgroup.procs"; done
      exec unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child "$@"' bash "$here/node-inside.sh" "$@" <&0 &
  inside=$!
  wait "$inside" || status=$?
  inside=
  exit $status
}

case ${1:-} in
  check) check ;;
  build) build ;;
  run)
    shift
    run "$@"
    ;;
  *) die "usage: $(basename "$0") check | build | run [--image ARCHIVE]... COMMAND..." ;;
esac
