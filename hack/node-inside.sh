#!/usr/bin/env bash
# The first process in the namespaces of a node; node.sh starts it. Starts the components, starts again whichever ends, as
# systemd would, and runs COMMAND with:
#
#   KUBECONFIG           of an administrator
#   NODE_DIR             pids/COMPONENT, log/COMPONENT.log; no component is started again while hold/COMPONENT exists
#   NODE_ADDRESS         the node's address, which pods reach
#   PATH                 with kubectl and ctr (the images of pods: ctr -n k8s.io images)
set -euo pipefail

dir=$NODE_DIR
address=10.244.0.1 # of the bridge to the pods, in this network namespace only
dns=10.96.0.10     # of the Service kube-dns
export NODE_ADDRESS=$address PATH=$NODE_BIN:$PATH CONTAINERD_ADDRESS=/run/containerd/containerd.sock KUBECONFIG=$dir/kubeconfig
IFS=: read -r -a bin <<<"$NODE_BIN" # control plane, node, containers, DNS

say() { printf 'node: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# ---------------------------------------------------------------------------------------------- namespaces

mount_filesystems() {
  local line controllers controller path
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  if [ -n "$NODE_UNIFIED" ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    read -r -a controllers </sys/fs/cgroup/cgroup.controllers
    for controller in "${controllers[@]}"; do echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true; done
  else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while IFS=: read -r _ controller _; do
      [ -n "$controller" ] || continue # the unified hierarchy of a machine that has both
      line=/sys/fs/cgroup/${controller#name=}
      mkdir "$line"
      mount -t cgroup -o "$controller" cgroup "$line"
    done </proc/self/cgroup
  fi
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p "$dir"/{pids,log,hold,var-log,kubelet,containerd,cni,etcd}
  mount --bind "$dir/var-log" /var/log
  # The kubelet and libcni have fixed paths there, which may be those of a kubelet of this machine.
  for path in /var/lib/kubelet /var/lib/cni /usr/libexec/kubernetes; do
    mkdir -p "$path"
    mount -t tmpfs -o mode=755 tmpfs "$path"
  done
  echo "127.0.0.1 localhost" >"$dir/hosts"
  echo "$address node" >>"$dir/hosts"
  echo "10.96.0.1 kubernetes.default.svc" >>"$dir/hosts" # the issuer of ServiceAccount tokens, for Keycloak on the node
  mount --bind "$dir/hosts" /etc/hosts
  : >"$dir/resolv.conf" # no names but those of the cluster
}

set_up_network() {
  hostname node
  ip link set lo up
  ip link add cni0 type bridge
  ip address add $address/16 dev cni0
  ip link set cni0 up
  ip route add default via 10.244.255.254 dev cni0 onlink # the kubelet wants one; it leads nowhere
  echo 1 >/proc/sys/net/ipv4/ip_forward
  if [ -e /proc/sys/net/bridge ]; then echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables; fi
}

# ---------------------------------------------------------------------------------------------- configuration

random_token() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

kubeconfig() { # TOKEN
  cat <<YAML
apiVersion: v1
kind: Config
current-context: node
contexts: [{name: node, context: {cluster: node, user: user}}]
users: [{name: user, user: {token: $1}}]
clusters:
- name: node
  cluster: {server: "https://$address:6443", certificate-authority: $dir/certs/apiserver.crt}
YAML
}

write_configuration() {
  local token
  umask 077
  token=$(random_token)
  echo "$token,admin,admin,system:masters" >"$dir/tokens.csv"
  kubeconfig "$token" >"$KUBECONFIG"
  umask 022
  cat >"$dir/containerd.toml" <<TOML
version = 3
root = "$dir/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[grpc]
address = "$CONTAINERD_ADDRESS"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "localhost/tokensource-e2e:1"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["${bin[2]}"]
conf_dir = "$dir/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "${bin[2]}/runc"
SystemdCgroup = false
TOML
  cat >"$dir/cni/pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
"ipam": {"type": "host-local", "dataDir": "$dir/cni-addresses", "ranges": [[{"subnet": "10.244.0.0/16"}]],
"routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
  # The periods in which Secrets reach pods are the kubelet's defaults.
  cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: true
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
clusterDNS: [$dns]
clusterDomain: cluster.local
resolvConf: $dir/resolv.conf
containerRuntimeEndpoint: unix://$CONTAINERD_ADDRESS
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageMinimumGCAge: 24h
YAML
  cat >"$dir/Corefile" <<COREFILE
. {
  bind $address
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $KUBECONFIG node
  }
  cache 30
}
COREFILE
}

# The Service of the cluster's names, whose server is a process of the node.
dns_service() {
  cat <<YAML
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: $dns
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: [$address]}]
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
YAML
}

# ---------------------------------------------------------------------------------------------- components

components="etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy coredns"

# start COMPONENT: sets $pid.
start() {
  local command
  case $1 in
    etcd) command=("${bin[0]}/etcd" --data-dir "$dir/etcd" --unsafe-no-fsync --listen-peer-urls http://127.0.0.1:0) ;;
    kube-apiserver)
      # Its self-made certificate is for the advertised address; the same key signs tokens of ServiceAccounts. The admission
      # plugin is one that OpenShift enables.
      command=("${bin[0]}/kube-apiserver" --etcd-servers http://127.0.0.1:2379 --bind-address 0.0.0.0
        --advertise-address "$address" --cert-dir "$dir/certs" --token-auth-file "$dir/tokens.csv" --authorization-mode "Node,RBAC"
        --allow-privileged=true --service-cluster-ip-range 10.96.0.0/24
        --enable-admission-plugins=OwnerReferencesPermissionEnforcement
        --kubelet-preferred-address-types InternalIP
        --service-account-issuer https://kubernetes.default.svc
        --service-account-key-file "$dir/certs/apiserver.key" --service-account-signing-key-file "$dir/certs/apiserver.key")
      ;;
    kube-controller-manager)
      command=("${bin[0]}/kube-controller-manager" --kubeconfig "$KUBECONFIG" --secure-port 0 --leader-elect=false
        --controllers='*' --root-ca-file "$dir/certs/apiserver.crt"
        --service-account-private-key-file "$dir/certs/apiserver.key")
      ;;
    kube-scheduler) command=("${bin[1]}/kube-scheduler" --kubeconfig "$KUBECONFIG" --secure-port 0 --leader-elect=false) ;;
    containerd) command=("${bin[2]}/containerd" --config "$dir/containerd.toml") ;;
    kubelet)
      command=("${bin[1]}/kubelet" --config "$dir/kubelet.yaml" --kubeconfig "$KUBECONFIG" --root-dir "$dir/kubelet"
        --hostname-override node --node-ip "$address")
      ;;
    kube-proxy)
      command=("${bin[1]}/kube-proxy" --kubeconfig "$KUBECONFIG" --hostname-override node --proxy-mode iptables
        --cluster-cidr 10.244.0.0/16 --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0
        --conntrack-tcp-timeout-close-wait 0)
      ;;
    coredns) command=("${bin[3]}/coredns" -conf "$dir/Corefile") ;;
  esac
  "${command[@]}" </dev/null >>"$dir/log/$1.log" 2>&1 &
  pid=$!
  disown "$pid" # bash would report its end; supervise() starts it again
  echo "$pid" >"$dir/pids/$1"
}

# until_ready COMPONENT SECONDS COMMAND...
until_ready() {
  local name=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$(cat "$dir/pids/$name")" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
      tail -n 20 "$dir/log/$name.log" >&2
      die "$name did not start in time; the end of its log is above"
    fi
    sleep 0.2
  done
}

# shellcheck disable=SC2317,SC2329 # until_ready calls it
node_is_ready() {
  [ "$(kubectl get node node -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status} {.spec.taints}')" = 'True ' ]
}

# shellcheck disable=SC2317,SC2329 # until_ready calls it
dns_is_ready() {
  local status=
  exec 4<>/dev/tcp/127.0.0.1/8181 || return
  printf 'GET /ready HTTP/1.0\r\n\r\n' >&4
  read -r -t 5 _ status _ <&4 || true
  exec 4<&-
  [ "$status" = 200 ]
}

start_all() {
  local image
  start etcd
  until_ready etcd 60 grep -q 'serving client traffic' "$dir/log/etcd.log"
  start containerd
  start kube-apiserver
  until_ready kube-apiserver 120 kubectl get --raw /readyz
  start kube-controller-manager
  start kube-scheduler
  start kube-proxy
  start coredns
  dns_service | kubectl apply --server-side --validate=false -f - >/dev/null # it would load the API's description
  until_ready containerd 60 ctr version
  for image in $NODE_IMAGES; do ctr -n k8s.io images import "$image" >>"$dir/log/images.log" 2>&1; done
  start kubelet
  until_ready kubelet 120 node_is_ready
  until_ready coredns 60 dns_is_ready
}

# Starts components again that have ended.
supervise() {
  local name
  for name in $components; do
    if ! kill -0 "$(cat "$dir/pids/$name")" 2>/dev/null && ! [ -e "$dir/hold/$name" ]; then
      echo "$(date -u +%H:%M:%S) $name starts again" >>"$dir/log/restarts.log"
      start "$name"
    fi
  done
}

[ $$ = 1 ] || die "node.sh starts this"
trap 'exit 143' TERM INT HUP
began=$SECONDS
mount_filesystems
set_up_network
write_configuration
say "starting $components"
start_all
say "the node is ready after $((SECONDS - began)) s; running: $*"
"$@" <&0 &
running=$!
while kill -0 $running 2>/dev/null; do
  supervise
  sleep 0.5
done
status=0
wait $running || status=$?
exit $status
