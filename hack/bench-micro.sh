#!/usr/bin/env bash
# Counts the instructions and allocations of benches/micro under Valgrind.
#
#   bench-micro.sh           the figures, beside those of the last run
#   bench-micro.sh COMMIT    the same beside COMMIT; exit code 3 where one needs 5 % more instructions or allocations
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v valgrind >/dev/null || { echo "Valgrind is missing. Debian: apt-get install valgrind" >&2; exit 1; }

GUNGRAUN_RUNNER=$(hack/cargo-tools.sh gungraun-runner)/gungraun-runner
export GUNGRAUN_RUNNER CARGO_TARGET_DIR=$PWD/target/micro GUNGRAUN_HOME=$PWD/target/micro/gungraun

count() {
  cargo bench --quiet --locked --bench micro --manifest-path "$1/benches/micro/Cargo.toml" -- "${@:2}"
}

if [ $# = 0 ]; then
  count .
  exit
fi
before=$(mktemp -d)
trap 'git worktree remove --force "$before"' EXIT
git worktree add --quiet --detach "$before" "$1"
# The benchmarks of now, so that both sides count the same.
if [ -d "$before/benches/micro" ]; then
  cp -R benches/micro/benches "$before/benches/micro/"
  if ! count "$before" --save-baseline=before; then
    echo "the benchmarks of now do not build with $1: nothing to compare with" >&2
    count .
    exit
  fi
  count . --baseline=before --callgrind-limits='ir=5%' --dhat-limits='totalblocks=5%'
else
  echo "$1 has no benches/micro: nothing to compare with" >&2
  count .
fi
