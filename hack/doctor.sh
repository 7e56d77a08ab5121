#!/usr/bin/env bash
# Prints what this machine lacks for `make demo` and `make test`, with remedies. Exit code 1 if something is missing; what
# `make test` can do without is `optional`.
#
#   doctor.sh                     all checks, one line each
#   doctor.sh --quiet             only what is missing
#   doctor.sh --debian-packages   only the names of the missing Debian packages
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export LC_ALL=C
mode=${1:-}
failures=0

ok() { [ -n "$mode" ] || echo "ok       $*"; }

# missing WHAT DEBIAN_PACKAGES REMEDY. No packages: Debian has none, or they are too old.
missing() {
  failures=$((failures + 1))
  case $mode in
    --debian-packages) [ -z "$2" ] || echo "$2" ;;
    *)
      echo "missing  $1"
      [ -z "$2" ] || echo "           Debian: apt-get install $2"
      [ -z "$3" ] || echo "           $3"
      ;;
  esac
}

# at_least HAVE WANT: compares dotted versions.
at_least() {
  awk -v have="$1" -v want="$2" 'BEGIN {
    split(have, h, "."); split(want, w, ".")
    for (i = 1; i <= 3; i++) { if (h[i] + 0 > w[i] + 0) exit 0; if (h[i] + 0 < w[i] + 0) exit 1 }
  }'
}

# Prints the first dotted number in a command's output; nothing if it cannot run.
version_of() {
  works "$@" || return
  "$@" 2>&1 </dev/null | sed -n 's/^[^0-9]*\([0-9][0-9.]*\).*/\1/p' | head -n 1
}

# optional WHAT REMEDY
optional() {
  [ -n "$mode" ] || printf 'optional %s\n           %s\n' "$1" "$2"
}

works() { "$@" >/dev/null 2>&1 </dev/null; }

# tool COMMAND DEBIAN_PACKAGE WHY
tool() {
  if works "$1" --version; then ok "$1"; else missing "$1: $3" "$2" "macOS: brew install $2"; fi
}

# ---------------------------------------------------------------------------------------------- to build

rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
have=$(version_of cargo --version)
if [ -n "$have" ] && at_least "$have" "$rust"; then ok "Rust $have"; else
  missing "Rust $rust or later, with cargo (found: ${have:-none})" "" "https://rustup.rs, or 'rustup update stable' if rustup is installed"
fi
for component in clippy rustfmt; do
  if works "cargo-${component/rustfmt/fmt}" --version; then ok "$component"; else missing "$component" "" "rustup component add $component"; fi
done

# aws-lc-sys (TLS, JWT) compiles C; it includes build files for the common platforms and needs no cmake there.
if echo '#include <stdlib.h>
int main(void) { return 0; }' | cc -x c - -o /dev/null 2>/dev/null; then ok "C compiler"; else
  missing "a C compiler (cc) with the C library's headers" build-essential "macOS: xcode-select --install"
fi

# `make e2e` alone builds hack/containers.
go=$(find hack -name go.mod ! -path hack/containers/go.mod -exec awk '$1 == "go" { print $2 }' {} + | sort -t . -k 1,1n -k 2,2n -k 3,3n | tail -n 1)
have=$(version_of env GOTOOLCHAIN=local go env GOVERSION)
if [ -z "$have" ]; then
  missing "Go $go or later: it builds the control plane, Helm and promtool" "" "https://go.dev/dl/"
elif at_least "$have" "$go"; then
  ok "Go $have"
elif at_least "$have" 1.21 && [ "$(cd / && go env GOTOOLCHAIN)" != local ]; then
  ok "Go $have, which downloads Go $go"
else
  missing "Go $go or later: it builds the control plane, Helm and promtool (found: $have)" "" "https://go.dev/dl/, or GOTOOLCHAIN=auto with Go 1.21 or later"
fi

have=$(version_of node --version)
if [ -n "$have" ] && at_least "$have" 20; then ok "Node $have"; else
  missing "Node 20 or later: it runs the authorization server (found: ${have:-none})" "" "https://nodejs.org/en/download"
fi
if works npm --version; then ok npm; else missing npm "" "it comes with Node: https://nodejs.org/en/download"; fi

# ---------------------------------------------------------------------------------------------- to run

tool bash bash "the scripts in hack/ need it"
tool make make "the developer targets need it"
tool git git "the scripts need it"
tool curl curl "the demo and the documentation's examples use it"
tool fish fish "'make test' presses Tab in it"
tool zsh zsh "'make test' presses Tab in it"
tool shellcheck shellcheck "'make lint-scripts' runs it"
tool python3 python3 "'make test' runs the documentation's examples"
if [ "$(uname -s)" != Linux ] || compgen -G '/usr/lib*/*/faketime/libfaketime.so.1' >/dev/null ||
  compgen -G '/usr/lib*/faketime/libfaketime.so.1' >/dev/null; then ok libfaketime; else
  missing "libfaketime: 'make test' sets the wall clock of operators by it" libfaketime ""
fi
have=$(version_of javac -version)
if [ -n "$have" ] && at_least "$have" 17 && works java -version; then ok "JDK $have"; else
  missing "a JDK, 17 or later: 'make test' runs the documentation's examples (found: ${have:-none})" default-jdk-headless "macOS: brew install openjdk, and put it on the PATH"
fi

# Whether Maven Central can be reached shows only when Maven fetches, which takes minutes.
keycloak=$(sed -n 's/^version=.*:-\(.*\)}$/\1/p' hack/keycloak.sh)
cache=${TOKENSOURCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tokensource-operator}
if [ -e "$cache/keycloak-$keycloak/.built" ]; then ok "Keycloak $keycloak"; elif works mvn --version; then
  optional "Keycloak $keycloak is not here yet: 'make test' fetches it once (180 MB), by Maven" \
    "where Maven Central cannot be reached, 'make test' leaves out keycloak::, and says so"
else
  optional "Maven: it fetches Keycloak; without it 'make test' leaves out keycloak::, and says so" \
    "Debian: apt-get install maven. macOS: brew install maven. It must reach Maven Central"
fi

# A refused connection shows that the loopback network works.
if (exec 4<>/dev/tcp/127.0.0.1/1) 2>&1 | grep -q refused || (exec 4<>/dev/tcp/127.0.0.1/1) 2>/dev/null; then ok "loopback network"; else
  missing "a loopback network (127.0.0.1), and a bash with /dev/tcp" "" "on Linux: ip link set lo up"
fi

limit=$(ulimit -n)
if [ "$limit" = unlimited ] || [ "$limit" -ge 1024 ]; then ok "open files: $limit"; else
  missing "1024 open files (the limit is $limit)" "" "ulimit -n 4096"
fi

# room DIRECTORY GIB: checks the free space where the directory is or will be.
room() {
  local at=$1 free
  while [ ! -d "$at" ]; do at=$(dirname "$at"); done
  free=$(df -Pk "$at" | awk 'NR == 2 { print int($4 / 1048576) }')
  if [ "$free" -ge "$2" ]; then ok "disk space: $free GiB at $at"; else
    missing "$2 GiB of disk space at $at ($free GiB are free)" "" "free some space, or set TOKENSOURCE_CACHE, GOPATH, GOCACHE and CARGO_TARGET_DIR to another disk"
  fi
}
# Building the control plane needs about 4 GiB (Go's modules and build cache), the tests as much.
if compgen -G "$cache/control-plane-*/kubectl" >/dev/null && [ -d target/debug ]; then room "$PWD" 2; else
  room "$PWD" 8
  room "$cache" 8
fi

if [ $failures -gt 0 ]; then
  [ "$mode" = --debian-packages ] || echo "$failures missing" >&2
  exit 1
fi
ok "nothing is missing"
