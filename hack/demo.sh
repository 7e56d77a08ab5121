#!/usr/bin/env bash
# Demonstrates the operator on this machine: a real control plane, a real authorization server, three TokenSources with token
# lifetimes of two to three minutes, failures and recovery. Needs Rust, Go and Node; builds what is missing. Ctrl-C stops it
# at any time and removes everything.
#
# Exit code 0: all checks held. A summary at the end lists the checks.
#
#   DEMO_SECONDS    duration after everything runs (240). The steps are never cut short; the remaining time is for
#                   watching. Below 120, token lifetimes are 40 to 60 s, and the steps take 20 s.
#   DEMO_OPERATOR   the path of an operator that is already built
#
# Runs on bash 3.2 (macOS).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# All connections are local.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY

seconds=${DEMO_SECONDS:-240}
case $seconds in
  '' | *[!0-9]*)
    echo "DEMO_SECONDS=$seconds: write a number of seconds" >&2
    exit 2
    ;;
esac
seconds=$((10#$seconds))
sources="vgs vng vcd"
lifetimes=(120 150 180)
# The first is that of the client whose secret is wrong for half a minute.
[ "$seconds" -ge 120 ] || lifetimes=(60 40 40)
timeout=30 # seconds for each check

# ---------------------------------------------------------------------------------------------- output

bold='' dim='' green='' red='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'; fi

step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '   %s\n' "$@"; }

# Prints new lines of `kubectl get tokensources -w`. Only this process prints, so that output is not interleaved.
table_lines=0
show_table() {
  local line now
  [ -f "$dir/table" ] || return 0
  now=$(date -u +%H:%M:%S)
  while IFS= read -r line; do
    table_lines=$((table_lines + 1))
    printf '%s%s | %s%s\n' "$dim" "$now" "$line" "$plain"
  done < <(tail -n +$((table_lines + 1)) "$dir/table")
}

# A sleep that a trapped signal ends at once.
nap() {
  sleep "$1" >/dev/null 2>&1 9>&- &
  wait $! || true
}

# run COMMAND...: prints the command and runs it.
run() {
  show_table
  typed "$(quoted "$@")"
  "$@" 2>&1 | fold -s -w 96 | sed 's/^/   /'
}

# typed LINE: prints a command line as if it were typed.
typed() {
  printf '%s' "$bold"
  printf '%s\n' "$1" | fold -s -w 92 | sed -e '1s/^/   $ /' -e '2,$s/^/       /' -e '$!s/$/\\/'
  printf '%s' "$plain"
}

quoted() {
  local word line=''
  for word in "$@"; do
    case $word in
      *[!A-Za-z0-9_./:=,@%+-]*) line="$line '$word'" ;;
      *) line="$line $word" ;;
    esac
  done
  printf '%s' "${line# }"
}

results=()
failures=0
# check WORDS COMMAND...: checks that the command succeeds within $timeout seconds; counted for the summary.
check() {
  local words=$1
  shift
  if eventually "$timeout" "$@"; then
    results+=("${green}held        $plain $words")
    printf '%s   ok: %s%s\n' "$green" "$words" "$plain"
  else
    failures=$((failures + 1))
    results+=("${red}DID NOT HOLD$plain $words")
    printf '%s   DID NOT HOLD: %s%s\n' "$red" "$words" "$plain"
  fi
}

# eventually SECONDS COMMAND...
eventually() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $deadline ] || return 1
    nap 0.5
    show_table
  done
  show_table
}

# ---------------------------------------------------------------------------------------------- clean-up, on every way out

dir=$(mktemp -d "${TMPDIR:-/tmp}/tokensource-demo.XXXXXX")
mkdir "$dir/pids"
mkfifo "$dir/lifeline"
# All processes end when this is closed, however this script ends, including SIGKILL.
exec 9<>"$dir/lifeline"

# shellcheck disable=SC2046 # one word for each pid
(
  trap '' INT TERM HUP
  trap - EXIT
  set +e
  # Opened before 9 is closed: opening it without any writer would block.
  exec 8<"$dir/lifeline" 9>&-
  read -r _ <&8 || true
  # The control plane and the authorization server watch the lifeline themselves.
  kill $(cat "$dir/pids/table" "$dir/pids/reader")
  kill -KILL $(cat "$dir/pids/operator")
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 $(cat "$dir"/pids/*) || break # some are still running
    sleep 0.5
  done
  kill -KILL $(cat "$dir"/pids/*)
  rm -rf "$dir"
) >/dev/null 2>&1 </dev/null &
reaper=$!

ended=
cleanup() {
  local status=$?
  trap '' INT TERM HUP
  if [ -z "$ended" ] && [ $status -lt 128 ]; then
    printf '\n   The demonstration did not finish; see the output above for the cause.\n' >&2
  fi
  # The reaper may not know processes that were just started.
  # shellcheck disable=SC2046 # one word for each pid
  kill $(jobs -p) 2>/dev/null || true
  exec 9>&-
  wait $reaper 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'ended=yes; echo; echo "   Interrupted: everything is stopped and removed."; exit 130' INT
trap 'exit 143' TERM

# start NAME COMMAND...: in the background; its output goes to a file of its name.
start() {
  local name=$1
  shift
  "$@" <"$dir/lifeline" >>"$dir/$name" 2>>"$dir/$name.log" 9>&- &
  echo $! >"$dir/pids/$name"
}

alive() { kill -0 "$(cat "$dir/pids/$1")" 2>/dev/null; }

# has_begun NAME: whether it has printed the line that says so; the end of everything if it ended instead.
has_begun() {
  if [ -s "$dir/$1" ]; then return; fi
  alive "$1" || give_up "$1 did not start"
  return 1
}

give_up() {
  printf '\n%s   %s; the end of its log:%s\n' "$red" "$1" "$plain" >&2
  tail -n 20 "$dir/${1%% *}.log" >&2 || true
  exit 1
}

# ---------------------------------------------------------------------------------------------- build

printf '%s\n' "${bold}tokensource-operator: a demonstration${plain}"
say "An operator keeps OAuth 2.0 access tokens fresh in Kubernetes Secrets. Here it runs against a" \
  "real control plane and a certified authorization server, both on 127.0.0.1. Ctrl-C removes all."
# bash cannot reset a signal that was ignored when it started, as SIGINT is in `sh -c 'make demo &'`.
case $(trap -p INT) in
  "trap -- '' "*) say "SIGINT is ignored here, as in a background job of a script. To end it and remove all: kill $$" ;;
esac

step "Build what is missing"
say "The first run takes minutes: control plane and operator are built from source. Later, seconds."
hack/doctor.sh --quiet || say "(Not all of this is needed here; the demonstration continues.)"
say "1/3 the control plane: etcd, kube-apiserver, kube-controller-manager, kubectl"
hack/control-plane.sh build >/dev/null
say "2/3 the authorization server's npm packages"
make --silent npm-packages
say "3/3 the operator"
operator=${DEMO_OPERATOR:-}
if [ -z "$operator" ]; then
  operator=$(cargo build --bin tokensource-operator --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
fi

# ---------------------------------------------------------------------------------------------- start

step "Start the control plane and the authorization server"
start control-plane hack/control-plane.sh run --dir "$dir/cp" --crds crds --until-stdin-closes
start authorization-server node tests/authorization-server/server.mjs --until-stdin-closes
eventually 120 has_begun control-plane || give_up "control-plane did not start in time"
eventually 120 has_begun authorization-server || give_up "authorization-server did not start in time"

export KUBECONFIG=$dir/cp/kubeconfig KUBECACHEDIR=$dir/kubectl
# The port may be in use; and with one replica leader election is unnecessary.
export TOKENSOURCE_ADMIN_ADDRESS=off TOKENSOURCE_LEADER_ELECT=false
issuer=$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$dir/authorization-server")
kubectl() { "$dir/cp/bin/kubectl" --request-timeout=20s "$@" 9>&-; }
kubectl create namespace demo >/dev/null
kubectl config set-context --current --namespace=demo >/dev/null
began=$SECONDS

say "Commands for another terminal, while this runs:" ""
printf '%s' "$bold"
say "  export KUBECONFIG=$KUBECONFIG" \
  "  alias kubectl=$dir/cp/bin/kubectl" \
  "  kubectl get tokensources -o wide -w" \
  "  kubectl describe tokensource vgs" \
  "  kubectl explain tokensource.spec" \
  "  curl -s $issuer/control/requests   # the counted token requests" \
  "  tail -f $dir/operator.log"
printf '%s' "$plain"

step "Start the operator"
say "These flags allow connections to 127.0.0.1 and without TLS, which the default policy refuses."
start_operator() {
  typed "tokensource-operator run --allow-http --egress-allow 127.0.0.0/8"
  start operator "$operator" run --allow-http --egress-allow 127.0.0.0/8
}
start_operator

# ---------------------------------------------------------------------------------------------- the authorization server

control() { # METHOD PATH [JSON]
  curl -sS --fail --noproxy '*' --max-time 10 -X "$1" ${3:+-H 'content-type: application/json' -d "$3"} "$issuer/control/$2"
}

# The number of token requests that the authorization server has counted, of one client or of all.
requests() {
  control GET "${1:+clients/demo-$1/}requests" | sed 's/^[^0-9]*"total":\([0-9]*\).*/\1/'
}

control PUT clients/demo-vgs '{"client_secret": "right", "token_endpoint_auth_method": "client_secret_post",
  "scope": "cards:write", "access_token_ttl": '"${lifetimes[0]}"'}' >/dev/null
control PUT clients/demo-vng '{"client_secret": "right", "scope": "email", "access_token_ttl": '"${lifetimes[1]}"'}' >/dev/null
control PUT clients/demo-vcd '{"token_endpoint_auth_method": "none", "grant_types": ["refresh_token"],
  "tenant": "acme", "access_token_ttl": '"${lifetimes[2]}"'}' >/dev/null
api_token=$(control POST clients/demo-vcd/refresh-tokens | sed 's/.*"refresh_token":"\([^"]*\)".*/\1/')

# ---------------------------------------------------------------------------------------------- observations

token() { kubectl get secret "$1-token" -o 'go-template={{.data.access_token|base64decode}}' 2>/dev/null; }
token_id() { kubectl get tokensource "$1" -o 'jsonpath={.status.token.id}'; }
ready() { kubectl get tokensource "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].reason}'; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; }

# Succeeds if the authorization server accepts the token.
accepted() {
  [ "$(printf 'Authorization: Bearer %s' "$1" | curl -s --noproxy '*' --max-time 10 -o /dev/null -w '%{http_code}' -H @- "$issuer/resource")" = 200 ]
}

# shellcheck disable=SC2329,SC2317 # these are called by `check`
{
  is_ready() { [ "$(ready "$1")" = "$2" ]; }
  all_ready() {
    local source
    for source in $sources; do is_ready "$source" "True TokenValid" || return; done
  }
  id_is_the_tokens() { [ "$(token "$1" | sha256 | cut -c1-12)" = "$(token_id "$1")" ]; }
  holds() { [ "$(token "$1")" = "$2" ]; }
  # Succeeds if the Secret contains a token that differs from $2.
  changed() {
    local now
    now=$(token "$1") && [ -n "$now" ] && [ "$now" != "$2" ]
  }
  always_accepted() { grep -q accepted "$dir/reader" && ! grep -q refused "$dir/reader"; }
  counted() { [ "$(requests "${2:-}")" = "$1" ]; }
}

# An application: reads each Secret every two seconds and uses the token.
reader() {
  local source token
  trap 'exit' TERM
  while :; do
    for source in $sources; do
      token=$(token "$source") || continue
      if accepted "$token"; then echo accepted; else echo "refused $source $(date -u +%H:%M:%S)"; fi
    done
    nap 2
  done
}

# Succeeds if no refresh of these sources is due within so many seconds, so that the schedule does not affect a step.
quiet() { # SECONDS SOURCE...
  local within=$1 source
  shift
  for source in "$@"; do kubectl get tokensource "$source" -o 'jsonpath={.status.token.refreshAt}{"\n"}'; done |
    node -e '
      const times = require("fs").readFileSync(0, "utf8").trim().split("\n");
      const quiet = (at) => Date.parse(at) - Date.now() > 1000 * Number(process.argv[1]);
      process.exit(times.every(quiet) ? 0 : 1)' "$within"
}

# ---------------------------------------------------------------------------------------------- the steps

step "Three TokenSources, one for each preset"
say "Credentials are ordinary Secrets (on the command line only because these are for a demonstration):"
run kubectl create secret generic vgs-client --from-literal=client_id=demo-vgs --from-literal=client_secret=right
run kubectl create secret generic vng-client --from-literal=client_id=demo-vng --from-literal=client_secret=right
run kubectl create secret generic vcd-client --from-literal=refresh_token="$api_token"
cat >"$dir/tokensources.yaml" <<YAML
apiVersion: tokensource.dev/v1alpha1
kind: TokenSource
metadata: {name: vgs}
spec:
  provider:
    vgs: {tokenURL: "$issuer/auth/realms/vgs/protocol/openid-connect/token"}
  credentials: {secretRef: {name: vgs-client}}
  target: {name: vgs-token}
---
apiVersion: tokensource.dev/v1alpha1
kind: TokenSource
metadata: {name: vng}
spec:
  provider:
    vngCloud: {tokenURL: "$issuer/accounts-api/v2/auth/token"}
  credentials: {secretRef: {name: vng-client}}
  target: {name: vng-token}
---
apiVersion: tokensource.dev/v1alpha1
kind: TokenSource
metadata: {name: vcd}
spec:
  provider:
    vmwareCloudDirector:
      host: vcd.example.com
      tenant: acme
      tokenURL: "$issuer/oauth/tenant/acme/token"
  credentials: {secretRef: {name: vcd-client}}
  target: {name: vcd-token}
YAML
run cat "$dir/tokensources.yaml"
say "(Without tokenURL they would use the vendors' endpoints.) The table below is live, in UTC:"
typed "kubectl get tokensources -w &"
start table "$dir/cp/bin/kubectl" get tokensources -w
run kubectl apply -f "$dir/tokensources.yaml"
check "three TokenSources are Ready, each with a token in its Secret" all_ready
[ $failures -eq 0 ] || give_up "operator wrote no first tokens"
check "this took three token requests, one for each" counted 3
reader </dev/null >>"$dir/reader" 2>/dev/null 9>&- &
echo $! >"$dir/pids/reader"
say "From now on a reader reads the token of each Secret every few seconds and uses it."

step "The token's id in the status is the beginning of its SHA-256"
say "It shows which token a pod reads, without revealing the token:"
typed "kubectl get secret vgs-token -o jsonpath='{.data.access_token}' | base64 --decode | sha256sum | cut -c1-12"
say "$(kubectl get secret vgs-token -o 'jsonpath={.data.access_token}' | base64 --decode | sha256 | cut -c1-12)"
run kubectl get tokensource vgs -o 'jsonpath={.status.token.id}{"\n"}'
check "the id in the status is the beginning of the token's SHA-256" id_is_the_tokens vgs

step "The operator is killed, and starts again"
# shellcheck disable=SC2086 # one word for each
eventually 60 quiet 10 $sources || true
before=$(requests)
kept=$(token vgs)$(token vng)$(token vcd)
old=$(cat "$dir/pids/operator")
typed "kill -KILL $old"
{ # bash would report the kill
  kill -KILL "$old"
  wait "$old" || true
} 2>/dev/null
start_operator
say "The record of each token is on its Secret, where the new process finds it. Wait for 5 seconds."
for _ in 1 2 3 4 5; do
  nap 1
  show_table
done
after=$(requests)
say "token requests before: $before, after: $after"
check "a killed and restarted operator mints nothing" test "$before" = "$after"
check "and every Secret contains the same token as before" test "$kept" = "$(token vgs)$(token vng)$(token vcd)"

step "A target Secret is deleted"
before=$(requests vng)
old=$(token vng || true)
run kubectl delete secret vng-token
check "a deleted target Secret is restored, with a new token" changed vng "$old"
check "this took one token request" counted $((before + 1)) vng

step "The client secret is replaced by a wrong one"
eventually 60 quiet 8 vgs || true
old=$(token vgs || true)
run kubectl patch secret vgs-client -p '{"stringData": {"client_secret": "wrong"}}'
check "with a wrong client secret, vgs reports RefreshFailing and stays Ready" is_ready vgs "True RefreshFailing"
run kubectl get tokensource vgs -o 'jsonpath={.status.lastFailure.reason}{"\n"}{.status.lastFailure.message}{"\n"}'
check "its old token stays in the Secret, unchanged" holds vgs "$old"
check "and is still valid" accepted "$old"

step "The client secret is corrected"
run kubectl patch secret vgs-client -p '{"stringData": {"client_secret": "right"}}'
# A change of the credentials within 30 s after another one is used 30 s after that.
timeout=60
check "with the right client secret, vgs is TokenValid again" is_ready vgs "True TokenValid"
timeout=30
check "and has a new token" changed vgs "$old"

step "Tokens are replaced before they expire"
old=$(token vcd || true)
old_id=$(token_id vcd)
say "vcd's token $old_id expires at $(kubectl get secret vcd-token -o 'go-template={{.data.expires_at|base64decode}}')." \
  "It is refreshed at $(kubectl get tokensource vcd -o 'jsonpath={.status.token.refreshAt}'). Wait for that."
timeout=60
check "when its refresh was due, vcd's token was replaced" changed vcd "$old"
check "while the old token was still valid" accepted "$old"

left=$((seconds - (SECONDS - began)))
if [ $left -gt 0 ]; then
  step "Watch for $left s: each token is replaced long before it expires"
  say "(For manual checks, see the commands for another terminal above. Ctrl-C stops everything.)"
  while [ $((SECONDS - began)) -lt "$seconds" ]; do
    nap 1
    show_table
    alive operator || break
  done
fi

step "Summary"
ended=yes
timeout=5
check "each token that the reader read from a Secret was valid: $(grep -c accepted "$dir/reader") times" always_accepted
check "the operator was running to the end" alive operator
show_table
echo
for result in "${results[@]}"; do say "$result"; done
total=${#results[@]}
say "" "token requests in all: $(requests); vgs $(requests vgs) (one of them refused), vng $(requests vng), vcd $(requests vcd)"
if [ $failures -gt 0 ]; then
  say "" "$red$((total - failures)) of $total held; $failures did not.$plain The end of the operator's log:"
  tail -n 20 "$dir/operator.log" "$dir/reader" >&2
  exit 1
fi
say "" "$green$total of $total held.$plain Everything is stopped and removed now."
