#!/usr/bin/env bash
# Runs the commands of docs/quickstart.md as they are written, as root, on the node of node.sh in place of kind: `kind` and
# `docker` are scripts that find the node running and the image built. Succeeds if the reader has seen the token change in time.
#
# The node reaches no registry. The two images that examples/quickstart.yaml names are made here, of Debian's nginx and
# busybox-static.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tool=quickstart
# shellcheck source=hack/lib/processes.sh
. hack/lib/processes.sh
# shellcheck source=hack/lib/image-archive.sh
. hack/lib/image-archive.sh

page=docs/quickstart.md
lifetime=300                             # of the tokens of examples/quickstart.yaml, in seconds
image=tokensource-operator:quickstart    # as the page names it
built=ghcr.io/tokensource/tokensource-operator:quickstart # as image.sh does
variables='"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]'

# block NUMBER: a block of commands of the page.
block() { awk -v wanted="$1" '/^```bash$/ { inside = ++number == wanted; next } /^```$/ { inside = 0 } inside' $page; }

# used NAME: the image that the manifest names so, with its tag.
used() { sed -n "s#^ *image: \($1:[^ ]*\)\$#\1#p" examples/quickstart.yaml; }

# nginx FILE: an image like nginxinc/nginx-unprivileged, with the same folder of configuration.
nginx_image() {
  local root=$scratch/nginx library
  mkdir -p "$root"/{etc/nginx/conf.d,usr/sbin,var/log/nginx,tmp}
  chmod 1777 "$root/tmp" "$root/var/log/nginx"
  cp "$(command -v nginx)" "$root/usr/sbin/nginx"
  # The libraries, each at the path where the loader finds it.
  for library in $(ldd "$(command -v nginx)" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
  echo 'nginx:x:101:101::/:/' >"$root/etc/passwd"
  cat >"$root/etc/nginx/nginx.conf" <<'CONFIGURATION'
pid /tmp/nginx.pid;
daemon off;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/client_temp;
  proxy_temp_path /tmp/proxy_temp;
  fastcgi_temp_path /tmp/fastcgi_temp;
  uwsgi_temp_path /tmp/uwsgi_temp;
  scgi_temp_path /tmp/scgi_temp;
  include /etc/nginx/conf.d/*.conf;
}
CONFIGURATION
  image_archive "$root" "$(used nginxinc/nginx-unprivileged)" \
    "\"User\":\"101\",\"Entrypoint\":[\"/usr/sbin/nginx\",\"-c\",\"/etc/nginx/nginx.conf\"],$variables" "$1"
}

# busybox_images FILE SANDBOX: an image like busybox, and the one that holds the namespaces of a pod, by the name in node-inside.sh.
busybox_images() {
  local root=$scratch/busybox command
  mkdir -p "$root/bin"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for command in sh sleep date cut; do ln -s busybox "$root/bin/$command"; done
  image_archive "$root" "$(used busybox)" "\"Cmd\":[\"sh\"],$variables" "$1"
  image_archive "$root" localhost/tokensource-e2e:1 "\"User\":\"65532\",\"Entrypoint\":[\"sleep\",\"2147483647\"],$variables" "$2"
}

# stand_in NAME: reads a script.
stand_in() {
  mkdir -p "$scratch/bin"
  { echo '#!/bin/sh'; cat; } >"$scratch/bin/$1"
  chmod +x "$scratch/bin/$1"
}

build() {
  local commands
  commands=$(block 1 | grep -vc '^  ')
  [ "$commands" = 5 ] || die "$page says that there are five commands, and has $commands"
  for command in nginx busybox; do
    command -v $command >/dev/null || die "$command is missing; Debian: apt-get install nginx-light busybox-static"
  done
  hack/node.sh check
  hack/node.sh build
  helm=$(hack/tools.sh helm)
  scratch=$(mktemp -d)
  remove+=("$scratch")
  IMAGE_TAG=${built##*:} SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0} hack/image.sh archive "$scratch/operator.tar"
  nginx_image "$scratch/nginx.tar"
  busybox_images "$scratch/busybox.tar" "$scratch/sandbox.tar"
  # What the page builds with Docker was built by image.sh; the node was started.
  stand_in docker <<SCRIPT
[ "\$*" = "build --tag $image ." ] || { echo "docker \$*: quickstart.sh does not know it" >&2; exit 1; }
exec ctr -n k8s.io images tag --force $built docker.io/library/$image
SCRIPT
  stand_in kind <<SCRIPT
case "\$*" in
  "create cluster") exec kubectl get nodes ;;
  "load docker-image $image") exec ctr -n k8s.io images list -q name==docker.io/library/$image ;;
esac
echo "kind \$*: quickstart.sh does not know it" >&2
exit 1
SCRIPT
}

# What a reader of the page does, on the node.
follow() {
  local began=$SECONDS log restarts
  say "the five commands"
  bash -euxo pipefail -c "$(block 1)"
  say "what to see"
  bash -euxo pipefail -c "$(block 2 | sed 's/ --follow$//')"
  say "Ready, and read by a pod, after $((SECONDS - began)) s; waiting for another token"
  began=$SECONDS
  while :; do
    log=$(kubectl -n quickstart logs deployment/reader | awk '{ print $NF }' | uniq | grep -Ec '^[0-9a-f]{8}$' || true)
    [ "$log" -lt 2 ] || break
    [ $((SECONDS - began)) -lt $lifetime ] || die "the reader saw $log tokens within $lifetime s"
    sleep 2
  done
  restarts=$(kubectl -n quickstart get pods -o 'jsonpath={.items[*].status.containerStatuses[*].restartCount}')
  [ "$restarts" = '0 0' ] || die "containers were restarted: $restarts"
  kubectl -n quickstart get tokensource my-api -o wide
  say "the reader saw another token after $((SECONDS - began)) s, and no container was restarted"
}

case ${1:-} in
  '')
    build
    PATH=$scratch/bin:$helm:$PATH hack/node.sh run --image "$scratch/operator.tar" --image "$scratch/nginx.tar" \
      --image "$scratch/busybox.tar" --image "$scratch/sandbox.tar" bash hack/quickstart.sh --on-the-node
    ;;
  --on-the-node) follow ;; # node.sh starts it
  *) die "usage: $(basename "$0")" ;;
esac
