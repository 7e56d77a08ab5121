# shellcheck shell=bash
# For scripts that start processes, none of which may outlive them; to be sourced. Written for bash 3.2 (macOS) as well.

tool=${tool:-$(basename "$0" .sh)}
say() { printf '%s: %s\n' "$tool" "$*" >&2; }
die() {
  say "$*"
  exit 1
}

children=()  # every process that must not outlive this one
remove=()    # every path that must not
held=       # the lock, while it is this process'
cleanup() {
  trap '' INT TERM HUP
  if [ ${#children[@]} -gt 0 ]; then
    # KILL, not TERM: there is nothing to save, and an API server takes its time over open watches.
    kill -KILL "${children[@]}" 2>/dev/null || true
    wait "${children[@]}" 2>/dev/null || true
  fi
  if [ ${#remove[@]} -gt 0 ]; then rm -rf "${remove[@]}"; fi
  if [ -n "$held" ]; then rm -f "$held"; fi
}
# Of no effect for a signal that was ignored when this process started (SIGINT in a background job of a script): then
# SIGTERM ends it.
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Where the kernel offers it, children die with this process even when it is killed with SIGKILL.
leash=()
if setpriv --pdeathsig KILL true 2>/dev/null; then leash=(setpriv --pdeathsig KILL); fi

# start LOG COMMAND...: in the background, its pid in $pid.
start() {
  local log=$1
  shift
  ${leash[@]+"${leash[@]}"} "$@" </dev/null >"$log" 2>&1 &
  pid=$!
  children+=("$pid")
}

alive() { kill -0 "$1" 2>/dev/null; }

# A sleep that a trapped signal ends at once.
nap() {
  sleep "$1" >/dev/null 2>&1 &
  wait $! || true
}
