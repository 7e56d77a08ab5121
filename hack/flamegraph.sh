#!/usr/bin/env bash
# Draws where the operator's CPU time goes in a benchmark: target/flamegraph/flamegraph.svg, for a browser. Linux, with perf.
#
#   flamegraph.sh            run SCENARIO (default: full) of `make bench` with a build that has symbols, and draw
#   flamegraph.sh COMMAND    run a command and record it: what the benchmark does to start the operator. Of several, the last is drawn
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/target/flamegraph

if [ $# -gt 0 ]; then
  # The process stays the one that the benchmark has started, and measures. perf ends with it. It copies the largest part of a stack
  # that it can: that of a future which polls others does not fit into its usual 8 KiB.
  perf record --quiet -F 299 --call-graph dwarf,65528 --pid $$ --output "$out/perf.data" </dev/null &
  echo $! >"$out/pid"
  exec "$@"
fi

command -v perf >/dev/null || { echo "perf is missing. Debian: apt-get install linux-perf" >&2; exit 1; }
perf record --quiet --output /dev/null true 2>/dev/null || {
  echo "perf may not record: run as root, or set sysctl kernel.perf_event_paranoid=1" >&2
  exit 1
}
cd "$root"
inferno=$(hack/cargo-tools.sh inferno)
rm -rf "$out"
mkdir -p "$out"
echo "building with symbols, which takes half an hour on two slow cores the first time" >&2
SCENARIO=${SCENARIO:-full} OPERATOR_WRAPPER=$root/hack/flamegraph.sh cargo bench --profile profiling --bench scale
while kill -0 "$(cat "$out/pid")" 2>/dev/null; do sleep 1; done # until the last samples are written
echo "reading the samples" >&2
# Without inlined functions: to name those takes perf hours.
perf script --no-inline --input "$out/perf.data" | "$inferno/inferno-collapse-perf" >"$out/folded"
"$inferno/inferno-flamegraph" --title "CPU time of the operator" --deterministic --minwidth 0.3 <"$out/folded" >"$out/flamegraph.svg"
echo "$out/flamegraph.svg"
