#!/usr/bin/env bash
# Runs a Kubernetes control plane without a container runtime, for tests and demos: etcd, kube-apiserver and
# kube-controller-manager (for garbage collection, namespaces and ServiceAccounts).
#
#   control-plane.sh build      build what is not cached; prints the directory with the binaries
#   control-plane.sh run [--dir DIR] [--crds DIR] [--until-stdin-closes]
#                               start it; prints "READY <DIR>/kubeconfig"; ends on SIGTERM, SIGHUP or SIGINT (unless that
#                               was ignored when it started), or when stdin closes. DIR is new, empty, or of an earlier run
#
# A test that restores a snapshot of etcd (its address is in DIR/etcd-url) puts the data directory that etcdutl has made at
# DIR/restored: all components stop, and start again with it, on their ports.
#
# KUBERNETES=1.31 in the environment picks the version; it fails if the server that runs has another one.
# Uses the binaries in $KUBEBUILDER_ASSETS, if there are any. Runs on bash 3.2 (macOS).
set -euo pipefail

tool='control plane'
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib/processes.sh
. "$here/lib/processes.sh"
# shellcheck source=hack/lib/go-tools.sh
. "$here/lib/go-tools.sh"

# Required for owners, namespaces, ServiceAccounts, and the roles view, edit and admin.
controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller
controllers=$controllers,root-ca-certificate-publisher-controller,clusterrole-aggregation-controller

# In a folder that --dir named: a run may delete what an earlier one has left there.
marker=.tokensource-control-plane

# component NAME COMMAND...: starts it with its own log, and registers it for end_killed_run.
component() {
  local name=$1
  shift
  start "$dir/$name.log" "$@"
  echo "$pid" >"$dir/pids/$name"
}

# ---------------------------------------------------------------------------------------------- build

# Absolute, because it is the target of symlinks.
if [ -d "${KUBEBUILDER_ASSETS:-}" ]; then KUBEBUILDER_ASSETS=$(cd "$KUBEBUILDER_ASSETS" && pwd); fi
in_assets() { [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ]; }
elsewhere='' # binaries that another module provides, each between spaces
provided() {
  case $elsewhere in *" $1 "*) return ;; esac
  in_assets "$1"
}

# The version that hack/control-plane pins; without the patch release.
default_kubernetes() {
  local version
  version=$(pinned_version control-plane k8s.io/kubernetes)
  version=${version#v}
  echo "${version%.*}"
}

# link NAME SOURCE
link() {
  if [ "$(readlink "$bin/$1" || true)" != "$2" ]; then ln -sf "$2" "$bin/$1"; fi
}

# Sets $bin to the directory with all four binaries. etcd and kubectl are the same for every version of Kubernetes.
build() {
  local name older='' older_names='' known
  if [ -n "${KUBERNETES:-}" ] && [ "$KUBERNETES" != "$(default_kubernetes)" ]; then
    if ! [ -f "$hack/control-plane-$KUBERNETES/go.mod" ]; then
      known=$(cd "$hack" && echo control-plane-*/)
      known=${known//control-plane-/}
      die "KUBERNETES is $KUBERNETES, which hack/ does not pin: it has ${known//\//} $(default_kubernetes)"
    fi
    build_tools "control-plane-$KUBERNETES" "both take 3 to 10 minutes on 2 cores, and 1 GB of Go modules"
    older=$built older_names=" $(binaries_of "control-plane-$KUBERNETES" | tr '\n' ' ')"
  fi
  elsewhere=$older_names build_tools control-plane "all four take 5 to 10 minutes on 2 cores, and 1.5 GB of Go modules"
  bin=$built
  if [ -z "$older" ] && [ -z "${KUBEBUILDER_ASSETS:-}" ]; then return; fi
  bin=$cache/links-$(printf '%s %s %s' "${KUBEBUILDER_ASSETS:-}" "$older" "$built" | sha256)
  mkdir -p "$bin"
  for name in $(binaries_of control-plane); do
    if in_assets "$name"; then
      link "$name" "$KUBEBUILDER_ASSETS/$name"
    elif [ -n "$older" ] && [ -x "$older/$name" ]; then
      link "$name" "$older/$name"
    else
      link "$name" "$built/$name"
    fi
  done
}

# Fails if the server is not of the version that KUBERNETES picks, which binaries in $KUBEBUILDER_ASSETS may not be.
check_version() {
  local version
  [ -n "${KUBERNETES:-}" ] || return 0
  version=$(kubectl get --raw /version | sed -n 's/.*"gitVersion": "\([^"]*\)".*/\1/p')
  case $version in
    "v$KUBERNETES".*) ;;
    *) die "KUBERNETES is $KUBERNETES, but the API server has version $version${KUBEBUILDER_ASSETS:+: unset KUBEBUILDER_ASSETS}" ;;
  esac
}

# ---------------------------------------------------------------------------------------------- run

# Below the ephemeral port range. Another process may still take the port first: see with_retries().
free_port() {
  local attempt
  for ((attempt = 0; attempt < 1000; attempt++)); do
    port=$((20000 + RANDOM % 12000))
    # The subshell closes the connection when it ends.
    if ! (exec 4<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
  done
  die "found no free port on 127.0.0.1"
}

random_token() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

kubeconfig() { # TOKEN
  cat <<YAML
apiVersion: v1
kind: Config
current-context: control-plane
contexts: [{name: control-plane, context: {cluster: control-plane, user: admin}}]
users: [{name: admin, user: {token: $1}}]
clusters:
- name: control-plane
  cluster:
    server: https://127.0.0.1:$api_port
    certificate-authority-data: $(base64 <"$dir/certs/apiserver.crt" | tr -d '\n')
YAML
}

audit_policy() {
  cat <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None # requests of the control plane's components
  users: [system:apiserver, system:kube-controller-manager]
- level: None
  nonResourceURLs: ["/readyz*", "/livez*", "/healthz*"]
- level: Metadata
YAML
}

# The system's priorities only where a quota allows them, as on GKE.
admission_configuration() {
  cat <<'YAML'
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - resource: pods
      matchScopes:
      - {scopeName: PriorityClass, operator: In, values: [system-node-critical, system-cluster-critical]}
YAML
}

# failed COMPONENT MESSAGE: prints the end of its log and the message, and exits.
failed() {
  tail -n 20 "$dir/$1.log" >&2 || true
  die "$1 $2; the end of its log is above"
}

# until_ready COMPONENT SECONDS COMMAND...: returns 1 if its port was in use, so that another can be tried.
until_ready() {
  local name=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! alive "$pid"; then
      if grep -q 'address already in use' "$dir/$name.log"; then return 1; fi
      failed "$name" "did not start"
    fi
    [ $SECONDS -lt $deadline ] || failed "$name" "was not ready in time"
    nap 0.1
  done
}

kubectl() { "$bin/kubectl" --kubeconfig "$dir/kubeconfig" --request-timeout 5s "$@"; }

start_etcd() {
  rm -rf "$dir/etcd"
  free_port
  etcd_url=http://127.0.0.1:$port
  run_etcd
}

run_etcd() {
  component etcd "$bin/etcd" --data-dir "$dir/etcd" --unsafe-no-fsync \
    --listen-client-urls "$etcd_url" --advertise-client-urls "$etcd_url" --listen-peer-urls http://127.0.0.1:0
  etcd_pid=$pid
  # Checks its log, not a connection: another etcd might listen on the port.
  until_ready etcd 60 grep -q 'serving client traffic' "$dir/etcd.log" || return
  echo "$etcd_url" >"$dir/etcd-url"
}

start_apiserver() {
  free_port
  api_port=$port
  run_apiserver
}

run_apiserver() {
  # The server generates its certificate; the same key signs ServiceAccount tokens, whose issuer other servers can reach.
  # No limits on concurrent requests, because many tests share the server. No endpoints of the Service `kubernetes`, because
  # pods do not run here, and they cannot have the loopback address.
  component kube-apiserver "$bin/kube-apiserver" --etcd-servers "$etcd_url" \
    --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$api_port" --cert-dir "$dir/certs" \
    --token-auth-file "$dir/tokens.csv" --authorization-mode RBAC \
    --endpoint-reconciler-type none --service-cluster-ip-range 10.0.0.0/24 \
    --service-account-issuer "https://127.0.0.1:$api_port" \
    --service-account-key-file "$dir/certs/apiserver.key" --service-account-signing-key-file "$dir/certs/apiserver.key" \
    --admission-control-config-file "$dir/admission.yaml" \
    --audit-policy-file "$dir/audit-policy.yaml" --audit-log-path "$dir/audit.log" --audit-log-mode blocking \
    --audit-log-maxsize 4096 \
    --enable-priority-and-fairness=false --max-requests-inflight 0 --max-mutating-requests-inflight 0
  apiserver_pid=$pid
  until_ready kube-apiserver 60 test -s "$dir/certs/apiserver.crt" || return
  kubeconfig "$admin_token" >"$dir/kubeconfig"
  kubeconfig "$manager_token" >"$dir/controller-manager.kubeconfig"
  until_ready kube-apiserver 120 kubectl get --raw /readyz
}

start_controller_manager() {
  component kube-controller-manager "$bin/kube-controller-manager" \
    --kubeconfig "$dir/controller-manager.kubeconfig" --secure-port 0 --leader-elect=false \
    --controllers "$controllers" \
    --root-ca-file "$dir/certs/apiserver.crt" --kube-api-qps 500 --kube-api-burst 1000
  manager_pid=$pid
  until_ready kube-controller-manager 60 kubectl -n default get serviceaccount/default configmap/kube-root-ca.crt
}

# Starts all components again with the data in $dir/restored.
restore() {
  say 'etcd is restored from a snapshot'
  # KILL, because an API server waits for open watches.
  kill -KILL "$manager_pid" "$apiserver_pid" "$etcd_pid"
  wait "$manager_pid" "$apiserver_pid" "$etcd_pid" 2>/dev/null || true
  rm -rf "$dir/etcd" "$dir"/pids/*
  mv "$dir/restored" "$dir/etcd"
  if ! run_etcd || ! run_apiserver; then die "a port was taken meanwhile"; fi
  start_controller_manager
}

# Another process may take the port between the check and the start: then other ports are tried.
with_retries() {
  local attempt
  for attempt in 1 2 3 4 5; do
    if "$@"; then return; fi
    say "port $port is in use by another process (attempt $attempt)"
  done
  die "found no free port on 127.0.0.1"
}

# What is left of a run whose process was killed.
end_killed_run() {
  # shellcheck disable=SC2046 # splits into pids
  kill -KILL $(cat "$dir"/pids/* 2>/dev/null) 2>/dev/null || true
  [ -n "$keep" ] || rm -rf "$dir"
}

run() {
  local crds='' watch='' keep='' left
  dir=
  while [ $# -gt 0 ]; do
    case $1 in
      --dir | --crds) [ $# -ge 2 ] || die "$1 needs a directory" ;;
    esac
    case $1 in
      --dir) dir=$2 keep=yes && shift 2 ;;
      --crds) crds=$2 && shift 2 ;;
      --until-stdin-closes) watch=yes && shift ;;
      *) die "run: unknown argument $1" ;;
    esac
  done
  if [ -n "$keep" ]; then
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    # Before anything else, so that a run has left it whenever it was killed.
    if ! [ -e "$dir/$marker" ]; then
      [ -z "$(ls -A "$dir")" ] || die "$dir holds files that are not of an earlier run, which would be deleted:" \
        "name a new or empty folder with --dir"
      : >"$dir/$marker"
    fi
    for left in etcd etcd-url restored certs bin pids kubeconfig controller-manager.kubeconfig tokens.csv audit-policy.yaml \
      admission.yaml audit.log etcd.log kube-apiserver.log kube-controller-manager.log; do
      rm -rf "${dir:?}/$left"
    done
  else
    dir=$(mktemp -d "${TMPDIR:-/tmp}/tokensource-control-plane.XXXXXX")
    remove+=("$dir")
  fi
  mkdir "$dir/pids"
  if [ -n "$watch" ]; then watch_stdin end_killed_run; fi

  build
  ulimit -n 4096 2>/dev/null || true # macOS starts with 256
  ln -s "$bin" "$dir/bin"
  admin_token=$(random_token)
  manager_token=$(random_token)
  umask 077 # these files contain credentials
  echo "$admin_token,admin,admin,system:masters" >"$dir/tokens.csv"
  echo "$manager_token,system:kube-controller-manager,kube-controller-manager,system:masters" >>"$dir/tokens.csv"
  audit_policy >"$dir/audit-policy.yaml"
  admission_configuration >"$dir/admission.yaml"

  with_retries start_etcd
  with_retries start_apiserver
  check_version
  # Before the garbage collector starts, because it discovers new kinds only every 30 s.
  if [ -n "$crds" ]; then
    kubectl create -f "$crds" >/dev/null
    until_ready kube-apiserver 30 kubectl wait --for condition=Established --timeout 2s -f "$crds"
  fi
  start_controller_manager

  echo "READY $dir/kubeconfig"
  while :; do
    if [ -d "$dir/restored" ]; then restore; fi
    alive "$etcd_pid" || failed etcd "exited unexpectedly"
    alive "$apiserver_pid" || failed kube-apiserver "exited unexpectedly"
    alive "$manager_pid" || failed kube-controller-manager "exited unexpectedly"
    nap 1
  done
}

case ${1:-} in
  build)
    build
    echo "$bin"
    ;;
  run)
    shift
    run "$@"
    ;;
  *) die "usage: $(basename "$0") build | run [--dir DIR] [--crds DIR] [--until-stdin-closes]" ;;
esac
