#!/usr/bin/env bash
# Measures on a real node how fresh the token is that a pod reads, for `make e2e`: builds the operator's image, the reader's and
# the driver, starts a node (or uses the cluster of KUBECONFIG), installs the chart and runs the driver (tests/e2e).
#
#   e2e.sh [--long]
#   e2e.sh --node     only build the images, and start the node with a shell
#
# The result is target/e2e/freshness.md, and the exit code: 0 if no token that should have been valid was read expired.
#
#   KUBECONFIG           use this cluster, whose pods can reach this machine; disturbances that need the node are left out.
#                        kind: the images are loaded with `kind load`; others: E2E_IMAGE and E2E_READER_IMAGE name them in a
#                        registry, and `skopeo` or `crane` puts target/image.tar and target/e2e/reader.tar there;
#                        E2E_UPGRADE_IMAGE (target/e2e/upgrade.tar) is the one to upgrade to, else only annotations change
#   E2E_HOST             this machine's address as pods see it (with KUBECONFIG)
#   E2E_PHASES           only these, for example "steady leader-killed"
#   E2E_SECONDS          the duration of a phase (200; with --long the phase steady lasts 1230 or longer)
#   E2E_UPDATE_DOCS=1    write the result into docs/freshness.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/lib/image-archive.sh
. hack/lib/image-archive.sh

began=$SECONDS
say() { printf 'e2e: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

long='' shell=''
case ${1:-} in
  --long) long=yes ;;
  --node)
    shell=yes
    unset KUBECONFIG
    ;;
  '') ;;
  *) die "usage: $(basename "$0") [--long | --node]" ;;
esac
[ "$(uname -s)" = Linux ] || die "the images are built on Linux"
if [ -z "${KUBECONFIG:-}" ]; then
  # Before minutes of building.
  [ "$(id -u)" = 0 ] || die "a node needs root (sudo -E make e2e), or set KUBECONFIG to use a cluster"
  hack/node.sh check
fi
out=$PWD/target/e2e
mkdir -p "$out"

# reader_image FILE
reader_image() {
  local triple scratch
  triple=$(rustc -vV | sed -n 's/^host: //p')
  RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --quiet --locked --release -p tokensource-e2e --bin e2e-reader --target "$triple" --target-dir "$out/build"
  scratch=$(mktemp -d)
  install -m 0755 "$out/build/$triple/release/e2e-reader" "$scratch/e2e-reader"
  image_archive "$scratch" localhost/tokensource-e2e:1 \
    '"User":"65532:65532","Entrypoint":["/e2e-reader"],"Cmd":["pause"]' "$1"
  rm -rf "$scratch"
}

say "1/5 the operator's image (make image)"
# One time for all commits: with another, C libraries and what needs them are compiled again.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
make --silent image
say "2/5 the reader's image"
reader_image "$out/reader.tar"
if [ -n "$shell" ]; then exec hack/node.sh run --image target/image.tar --image "$out/reader.tar" bash; fi
say "3/5 the driver, npm packages of the authorization server, and an image to upgrade to"
cargo build --quiet --locked -p tokensource-e2e --bin e2e-driver
make --silent npm-packages
IMAGE_TAG=e2e-upgrade hack/image.sh archive "$out/upgrade.tar" # the same program in another image
say "4/5 kubectl, Helm and Keycloak"
export HELM KUBECTL
HELM=$(hack/tools.sh helm)/helm
KUBECTL=$(hack/control-plane.sh build)/kubectl
export E2E_LONG=$long E2E_OUT=$out E2E_KEYCLOAK=
# Its distribution comes from Maven Central, which not every machine reaches.
if hack/keycloak.sh build >/dev/null; then
  E2E_KEYCLOAK=yes
else
  say "Keycloak cannot be had (see above): the phase keyless is left out"
fi
driver=${CARGO_TARGET_DIR:-target}/debug/e2e-driver

status=0
upgrade=ghcr.io/tokensource/tokensource-operator:e2e-upgrade # its name in the archive
if [ -n "${KUBECONFIG:-}" ]; then
  say "5/5 the cluster of KUBECONFIG: $("$KUBECTL" config current-context)"
  case $("$KUBECTL" config current-context) in
    kind-*)
      for archive in target/image.tar "$out/reader.tar" "$out/upgrade.tar"; do
        kind load image-archive "$archive" --name "$("$KUBECTL" config current-context | sed 's/^kind-//')"
      done
      export E2E_UPGRADE_IMAGE=${E2E_UPGRADE_IMAGE:-$upgrade}
      ;;
  esac
  "$driver" || status=$?
else
  say "5/5 a node on this machine"
  E2E_UPGRADE_IMAGE=$upgrade hack/node.sh run --image target/image.tar --image "$out/reader.tar" --image "$out/upgrade.tar" \
    "$driver" || status=$?
fi
if [ "$status" = 0 ] && [ -n "${E2E_UPDATE_DOCS:-}" ]; then
  awk -v file="$out/freshness.md" '
    /<!-- measured -->/ { print; print ""; while ((getline line < file) > 0) print line; print ""; skipping = 1; next }
    /<!-- end of measured -->/ { skipping = 0 }
    !skipping { print }' docs/freshness.md >"$out/page.md"
  mv "$out/page.md" docs/freshness.md
fi
say "ended after $((SECONDS - began)) s; the tables are in $out/freshness.md"
exit "$status"
