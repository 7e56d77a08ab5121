# shellcheck shell=bash
# Builds tools from pinned Go modules, once, into the user's cache; to be sourced after processes.sh.
#
# A module is a folder hack/NAME that holds only a go.mod, whose `tool` lines say what to build, and its go.sum. It is a
# module for each tool (or set of tools that belong together), so that none raises another's dependencies.

hack=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${TOKENSOURCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tokensource-operator}
recipe=1 # raise it when the way of building changes: it is part of the cache's name

sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c1-16; }

# packages MODULE: what its tool lines name.
packages() {
  awk '$1 == "tool" && $2 == "(" { inside = 1; next } inside && $1 == ")" { exit }
    inside { print $1 } $1 == "tool" && $2 != "(" { print $2 }' "$hack/$1/go.mod"
}

# binary_of PACKAGE: the name by which it is known.
binary_of() {
  case $1 in
    go.etcd.io/etcd/server/*) echo etcd ;;
    *) basename "$1" ;;
  esac
}

# binaries_of MODULE
binaries_of() {
  local package
  for package in $(packages "$1"); do binary_of "$package"; done
}

# pinned_version MODULE PATH: of what that module requires.
pinned_version() { awk -v path="$2" '$1 == path { print $2 }' "$hack/$1/go.mod"; }

# The version that go.mod pins is linked in where the program would not know it.
ldflags() {
  local version minor path
  printf '%s' '-s -w'
  [ "$1" = control-plane ] || return 0
  # Without it the server calls itself v0.0.0, and clients misbehave.
  version=$(pinned_version control-plane k8s.io/kubernetes)
  minor=${version#v1.}
  for path in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf ' -X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s' \
      $path "$version" $path $path "${minor%%.*}"
  done
}

# What is left out: promtool would bring the clients of every cloud, for service discovery.
tags() { case $1 in prometheus) echo remove_all_sd ;; esac }

# One builder at a time. A symlink is made atomically, and names its owner. Should two ever get past it (a stolen
# lock), they only do the same work twice: each builds in a place of its own and renames.
lock() {
  local owner told=
  until ln -s $$ "$1" 2>/dev/null; do
    owner=$(readlink "$1" || true)
    if [ -n "$owner" ] && ! alive "$owner"; then
      rm -f "$1"
      continue
    fi
    [ -n "$told" ] || say "another process ($owner) is building it, waiting for that"
    told=yes
    nap 1
  done
  held=$1
}

# build_one MODULE PACKAGE DIRECTORY
build_one() {
  local name to=$3 began=$SECONDS told=$SECONDS scratch
  name=$(binary_of "$2")
  scratch=$(mktemp -d "$to/.build.XXXXXX")
  remove+=("$scratch")
  # Whoever calls has Go settings of their own, which must not change what comes out.
  start "$scratch/log" env GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED=0 GOTMPDIR="$scratch" \
    go build -C "$hack/$1" -tags "$(tags "$1")" -trimpath -buildvcs=false -ldflags "$(ldflags "$1")" -o "$scratch/bin" "$2"
  while alive "$pid"; do
    nap 1
    if [ $((SECONDS - told)) -ge 15 ]; then
      told=$SECONDS
      say "  $name: $((SECONDS - began)) s so far"
    fi
  done
  if ! wait "$pid"; then
    tail -n 20 "$scratch/log" >&2
    die "building $name failed (above); 'make doctor' says what this machine lacks"
  fi
  mv "$scratch/bin" "$to/$name"
  rm -rf "$scratch"
  say "  $name: built in $((SECONDS - began)) s"
}

# The caller may have some from elsewhere, and then says so by a function of its own.
provided() { false; }

# find_missing MODULE DIRECTORY: the packages whose binaries are not there, in $missing; the binaries' names in $names.
find_missing() {
  local package name
  missing=() names=
  for package in $(packages "$1"); do
    name=$(binary_of "$package")
    if ! provided "$name" && ! [ -x "$2/$name" ]; then missing+=("$package") names="$names $name"; fi
  done
}

# build_tools MODULE [REMARK]: builds what is not cached yet; leaves the directory that holds it in $built.
build_tools() {
  local package missing names number=0
  [ -f "$hack/$1/go.mod" ] || die "there is no hack/$1/go.mod"
  built=$cache/$1-$({ cat "$hack/$1/go.mod" "$hack/$1/go.sum"; uname -sm; echo $recipe; } | sha256)
  mkdir -p "$built"
  find_missing "$1" "$built"
  if [ ${#missing[@]} -gt 0 ]; then
    command -v go >/dev/null || die "Go is missing, which builds$names; 'make doctor' says how to get it"
    lock "$built/.lock"
    find_missing "$1" "$built" # again: whoever held the lock may have built it all
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    rm -rf "$built"/.build.* # of one that was killed
    say "building$names once, into $built${2:+ ($2)}"
    for package in "${missing[@]}"; do
      number=$((number + 1))
      say "[$number/${#missing[@]}] $(binary_of "$package")"
      build_one "$1" "$package" "$built"
    done
  fi
  if [ -n "$held" ]; then rm -f "$held"; fi
  held=
}
