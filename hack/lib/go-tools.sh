# shellcheck shell=bash
# Builds tools from pinned Go modules, once, into the user's cache. Source it after processes.sh.
#
# A module is a folder hack/NAME with only a go.mod, whose `tool` lines name the packages to build, and its go.sum. Each tool
# (or set of tools) has its own module, so that none changes another's dependencies.

hack=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${TOKENSOURCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tokensource-operator}
recipe=1 # part of the cache's name; increase it when the build changes

sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c1-16; }

# packages MODULE: the packages in its tool lines.
packages() {
  awk '$1 == "tool" && $2 == "(" { inside = 1; next } inside && $1 == ")" { exit }
    inside { print $1 } $1 == "tool" && $2 != "(" { print $2 }' "$hack/$1/go.mod"
}

# binary_of PACKAGE: the name of the binary.
binary_of() {
  case $1 in
    go.etcd.io/etcd/server/*) echo etcd ;;
    go.etcd.io/etcd/etcdutl/*) echo etcdutl ;;
    *) basename "$1" ;;
  esac
}

# binaries_of MODULE
binaries_of() {
  local package
  for package in $(packages "$1"); do binary_of "$package"; done
}

# pinned_version MODULE PATH: the version of PATH that the module requires.
pinned_version() { awk -v path="$2" '$1 == path { print $2 }' "$hack/$1/go.mod"; }

# Sets the version from go.mod in programs that do not know it.
ldflags() {
  local version minor path
  printf '%s' '-s -w'
  case $1 in control-plane* | node) ;; *) return 0 ;; esac
  # Otherwise the server reports v0.0.0, and clients misbehave.
  version=$(pinned_version "$1" k8s.io/kubernetes)
  minor=${version#v1.}
  for path in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf ' -X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s' \
      $path "$version" $path $path "${minor%%.*}"
  done
}

# Without service discovery, because promtool would include the clients of every cloud.
tags() { case $1 in prometheus) echo remove_all_sd ;; containers) echo seccomp ;; esac }

# runc has C code, and reads the seccomp profiles of pods with libseccomp.
cgo() { case $1 in containers) echo 1 ;; *) echo 0 ;; esac }

# builds PID: whether it is a script that takes locks, and not a process that has got the number of one since, as in containers,
# where numbers repeat. A lock is released before the next is taken, so that this process owns none.
builds() {
  local arguments script
  alive "$1" || return
  [ "$1" != $$ ] || return
  arguments=$(ps -ww -o args= -p "$1" 2>/dev/null) || return 0 # without ps it may be one
  # By name, not by path: `./tools.sh` in hack/ is one, too.
  for script in $(cd "$hack" && grep -l 'lib/go-tools\.sh"$' ./*.sh); do
    case $arguments in *"${script#./}"*) return ;; esac
  done
  return 1
}

# Allows one builder at a time. Creating a symlink is atomic, and it names its owner. If two builders hold the lock (a stolen
# lock), they only repeat work: each builds in a separate folder and renames.
lock() {
  local owner reported=
  until ln -s $$ "$1" 2>/dev/null; do
    owner=$(readlink "$1" || true)
    if [ -n "$owner" ] && ! builds "$owner"; then
      rm -f "$1"
      continue
    fi
    [ -n "$reported" ] || say "waiting for another process ($owner) that is building it"
    reported=yes
    nap 1
  done
  held=$1
}

# build_one MODULE PACKAGE DIRECTORY
build_one() {
  local name to=$3 began=$SECONDS reported=$SECONDS scratch
  name=$(binary_of "$2")
  scratch=$(mktemp -d "$to/.build.XXXXXX")
  remove+=("$scratch")
  # The caller's Go settings must not change the result.
  start "$scratch/log" env GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED="$(cgo "$1")" GOTMPDIR="$scratch" \
    go build -C "$hack/$1" -tags "$(tags "$1")" -trimpath -buildvcs=false -ldflags "$(ldflags "$1")" -o "$scratch/bin" "$2"
  while alive "$pid"; do
    nap 1
    if [ $((SECONDS - reported)) -ge 15 ]; then
      reported=$SECONDS
      say "  $name: $((SECONDS - began)) s so far"
    fi
  done
  if ! wait "$pid"; then
    tail -n 20 "$scratch/log" >&2
    die "building $name failed (see above); 'make doctor' prints what this machine lacks"
  fi
  mv "$scratch/bin" "$to/$name"
  rm -rf "$scratch"
  say "  $name: built in $((SECONDS - began)) s"
}

# The caller may redefine this to provide binaries.
provided() { false; }

# find_missing MODULE DIRECTORY: sets $missing to the packages whose binaries do not exist, $names to the binaries' names.
find_missing() {
  local package name
  missing=() names=
  for package in $(packages "$1"); do
    name=$(binary_of "$package")
    if ! provided "$name" && ! [ -x "$2/$name" ]; then missing+=("$package") names="$names $name"; fi
  done
}

# build_tools MODULE [REMARK]: builds what is not cached; sets $built to the directory.
build_tools() {
  local package missing names number=0
  [ -f "$hack/$1/go.mod" ] || die "there is no hack/$1/go.mod"
  built=$cache/$1-$({ cat "$hack/$1/go.mod" "$hack/$1/go.sum"; uname -sm; echo $recipe; } | sha256)
  mkdir -p "$built"
  find_missing "$1" "$built"
  if [ ${#missing[@]} -gt 0 ]; then
    command -v go >/dev/null || die "Go is missing, which builds$names; 'make doctor' prints the remedy"
    lock "$built/.lock"
    find_missing "$1" "$built" # again: the previous owner of the lock may have built it
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    rm -rf "$built"/.build.* # left by a killed build
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
