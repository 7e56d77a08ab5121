#!/usr/bin/env bash
# Pins a version of Kubernetes that the tests build: writes the Go module of its binaries, which control-plane.sh builds.
#
#   pin-kubernetes.sh default 1.37.2   hack/control-plane: what tests run by default, with etcd and kubectl for all versions
#   pin-kubernetes.sh node 1.37.2      hack/node: kubelet, kube-proxy and kube-scheduler of `make e2e`, of the same version
#   pin-kubernetes.sh 1.31.14          hack/control-plane-1.31: the API server and controllers of `KUBERNETES=1.31`
#
# Kubernetes replaces its staging modules by folders of its repository, which a module of its own cannot do. Each is published
# as k8s.io/NAME v0.MINOR.PATCH, with the same code.
set -euo pipefail

tool=pin-kubernetes
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib/processes.sh
. "$here/lib/processes.sh"

commands=(kube-apiserver kube-controller-manager)
default='' version=${2:-} module=
case ${1:-} in
  default) default=yes module=control-plane commands+=(kubectl) ;;
  node) module=node commands=(kube-proxy kube-scheduler kubelet) ;;
  *) version=${1:-} ;;
esac
[[ $version =~ ^1\.[0-9]+\.[0-9]+$ ]] || die "usage: pin-kubernetes.sh [default | node] 1.MINOR.PATCH"
minor=${version%.*} minor=${minor#1.} patch=${version##*.}
[ -n "$module" ] || module=control-plane-1.$minor

export GOWORK=off GOFLAGS=-mod=mod
scratch=$(mktemp -d)
remove+=("$scratch")
cd "$scratch"
echo "module scratch" >go.mod
upstream=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
[ -n "$upstream" ] || die "there is no k8s.io/kubernetes v$version"

# published MODULE: its version for this Kubernetes. A patch release may lack a module in which nothing changed.
published() {
  local try
  for ((try = patch; try >= 0 && try > patch - 4; try--)); do
    if go mod download "$1@v0.$minor.$try" >/dev/null 2>&1; then
      echo "v0.$minor.$try"
      return
    fi
  done
  die "there is no published $1 for Kubernetes $version"
}

stagings=$(awk '{ for (i = 1; i < NF; i++) if ($i == "=>" && $(i + 1) ~ /^\.\/staging/) print $(i - 1) }' "$upstream")
{
  echo "module github.com/tokensource/tokensource-operator/hack/$module"
  awk '/^go / || /^godebug default/ { print ""; print }' "$upstream"
  printf '\ntool (\n'
  if [ -n "$default" ]; then echo "	go.etcd.io/etcd/server/v3"; fi
  printf '	k8s.io/kubernetes/cmd/%s\n' "${commands[@]}"
  printf ')\n\nrequire (\n'
  # The version that this Kubernetes is tested with.
  if [ -n "$default" ]; then awk '$1 == "go.etcd.io/etcd/client/v3" { print "\tgo.etcd.io/etcd/server/v3", $2 }' "$upstream"; fi
  printf '	k8s.io/kubernetes v%s\n)\n\nreplace (\n' "$version"
  for staging in $stagings; do
    case $staging in */sample-*) continue ;; esac # no program needs them
    at=$(published "$staging")
    printf '	%s => %s %s\n' "$staging" "$staging" "$at"
  done
  echo ')'
} >pinned
mv pinned go.mod
go mod tidy >tidy.log 2>&1 || { tail -n 20 tidy.log >&2; die "go mod tidy failed"; }
go mod edit -fmt
pinned=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
[ "$pinned" = "v$version" ] || die "Go chose k8s.io/kubernetes $pinned"
mkdir -p "$here/$module"
cp go.mod go.sum "$here/$module/"
say "hack/$module: Kubernetes $version"
