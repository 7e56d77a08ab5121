# shellcheck shell=bash
# For scripts whose processes must not outlive them; to be sourced. Runs on bash 3.2 (macOS).

tool=${tool:-$(basename "$0" .sh)}
say() { printf '%s: %s\n' "$tool" "$*" >&2; }
die() {
  say "$*"
  exit 1
}

remove=() # paths to remove
held=     # the lock that this process holds
# Ends what runs in the background, and removes the paths and the lock.
cleanup() {
  local running
  trap '' INT TERM HUP
  # As the shell knows them: the number of a process that was waited for may be another's by now.
  running=$(jobs -pr)
  # shellcheck disable=SC2086 # one word for each
  if [ -n "$running" ]; then
    # KILL, not TERM: there is nothing to save, and an API server waits for open watches.
    kill -KILL $running 2>/dev/null || true
    wait $running 2>/dev/null || true
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

# If the kernel supports it, children end with this process even after SIGKILL.
leash=()
if setpriv --pdeathsig KILL true 2>/dev/null; then leash=(setpriv --pdeathsig KILL); fi

# start LOG COMMAND...: runs it in the background; sets $pid.
start() {
  local log=$1
  shift
  ${leash[@]+"${leash[@]}"} "$@" </dev/null >"$log" 2>&1 &
  pid=$!
}

# watch_stdin COMMAND...: ends this process when stdin closes, so that it never outlives its starter, however that ends. If this
# process was killed (SIGKILL), runs COMMAND. From here on stdin is empty.
watch_stdin() {
  local supervisor=$$
  exec 3<&0 </dev/null
  (
    trap - INT TERM HUP EXIT
    while IFS= read -r _; do :; done
    kill -TERM $supervisor 2>/dev/null && exit
    "$@"
  ) <&3 >/dev/null 2>&1 &
  exec 3<&-
}

alive() { kill -0 "$1" 2>/dev/null; }

# A sleep that a trapped signal ends at once.
nap() {
  sleep "$1" >/dev/null 2>&1 &
  wait $! || true
}
