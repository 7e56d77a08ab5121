#!/usr/bin/env bash
# Builds Rust tools that are not part of the toolchain, once, from pinned versions, into the user's cache.
#
#   cargo-tools.sh NAME    build it if it is not cached (minutes); prints the directory with the binary
set -euo pipefail

binary=${1:-} options=()
case ${1:-} in
  cargo-deny) version=0.20.2 ;;
  cargo-cyclonedx) version=0.5.9 ;;
  inferno) version=0.12.8 binary=inferno-flamegraph ;; # and inferno-collapse-perf
  gungraun-runner) version=0.20.0 ;; # that of the library: benches/micro/Cargo.toml
  mdbook) version=0.5.4 options=(--no-default-features --features search) ;; # without its server
  mdbook-mermaid) version=0.17.1 ;;
  *)
    echo "usage: $(basename "$0") cargo-deny | cargo-cyclonedx | gungraun-runner | inferno | mdbook | mdbook-mermaid" >&2
    exit 1
    ;;
esac
to=${TOKENSOURCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tokensource-operator}/$1-$version
if ! [ -x "$to/bin/$binary" ]; then
  echo "$1: building version $version once, into $to" >&2
  # Not the project's target folder, which would keep the build output.
  CARGO_TARGET_DIR=$to/target cargo install --quiet --locked --root "$to" --profile dev \
    ${options[@]+"${options[@]}"} "$1@$version" >&2
  rm -rf "$to/target"
fi
echo "$to/bin"
