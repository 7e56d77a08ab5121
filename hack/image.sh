#!/usr/bin/env bash
# Builds the operator's image, with or without Docker: a static binary and root certificates.
#
#   image.sh binary           build the static binary; prints its path
#   image.sh root DIRECTORY   write the files of the image there (used by the Dockerfile)
#   image.sh archive FILE     write the image as an OCI archive for docker load, podman load and crane
#
# The archive contains no time and no path of this machine. Linux only: it builds for this machine.
#
#   IMAGE_TAG=TAG    another tag than the version, and another label and layer: `make e2e` upgrades to such an image
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C TZ=UTC
umask 022

say() { printf 'image: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

about() { sed -n "s/^$1 = \"\(.*\)\"$/\1/p" Cargo.toml | head -n 1; } # a value of Cargo.toml's [package]

[ "$(uname -s)" = Linux ] || die "build the image on Linux, or with Docker (docker build .)"
case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64 | arm64) architecture=arm64 ;;
  *) die "there are images for amd64 and arm64 only, not for $(uname -m)" ;;
esac
name=$(about name)
repository=ghcr.io/tokensource/$name
user=65532 # unused on any machine; a number, because a kubelet cannot check names
# The time of the commit, not of the build, so that the image is reproducible.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

build_binary() {
  local target cargo_home=${CARGO_HOME:-$HOME/.cargo}
  target=$(rustc -vV | sed -n 's/^host: //p')
  # Static glibc: since 2.34 it resolves names (files, DNS) without loading libraries. Paths of this machine are removed.
  RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=. --remap-path-prefix=$cargo_home=cargo" \
    CFLAGS="-ffile-prefix-map=$cargo_home=cargo -ffile-prefix-map=$PWD=." SOURCE_DATE_EPOCH=$epoch \
    cargo build --locked --release --bin "$name" --target "$target" >&2
  binary=${CARGO_TARGET_DIR:-target}/$target/release/$name
}

lay_out() { # DIRECTORY
  local roots=/usr/share/ca-certificates/mozilla
  compgen -G "$roots/*.crt" >/dev/null || die "no root certificates in $roots: install Debian's ca-certificates"
  build_binary
  mkdir -p "$1/etc/ssl/certs"
  install -m 0755 "$binary" "$1/$name"
  install -m 0644 LICENSE "$1/LICENSE"
  # Only Mozilla's certificates, none that were added to this machine.
  cat "$roots"/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"
  echo 'hosts: files dns' >"$1/etc/nsswitch.conf"
  echo "nonroot:x:$user:$user:nonroot:/:/" >"$1/etc/passwd"
  echo "nonroot:x:$user:" >"$1/etc/group"
}

digest() { sha256sum "$1" | cut -d ' ' -f 1; }

# add_blob FILE: moves it to the path of its digest; sets $blob to the digest and $size to the size.
add_blob() {
  blob=$(digest "$1")
  size=$(stat -c %s "$1")
  mv "$1" "$layout/blobs/sha256/$blob"
}

# pack DIRECTORY FILE: reproducible, and without the prefix ./, which crane does not accept.
pack() {
  local to
  to=$(realpath -m "$2")
  (cd "$1" && tar --sort=name --format=ustar --mtime="@$epoch" --owner=0 --group=0 --numeric-owner -cf "$to" -- *)
}

archive() { # FILE
  local version reference created revision layer config manifest unpacked
  version=${IMAGE_TAG:-$(about version)}
  reference=$repository:$version
  created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
  revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
  if [ -n "$(git status --porcelain 2>/dev/null)" ]; then revision=$revision-dirty; fi

  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  layout=$scratch/layout
  mkdir -p "$layout/blobs/sha256" "$scratch/root"
  lay_out "$scratch/root"
  if [ -n "${IMAGE_TAG:-}" ]; then echo "$IMAGE_TAG" >"$scratch/root/etc/image-tag"; fi
  pack "$scratch/root" "$scratch/layer.tar"
  unpacked=$(digest "$scratch/layer.tar")
  gzip -n -9 "$scratch/layer.tar"
  add_blob "$scratch/layer.tar.gz"
  layer=$blob layer_size=$size

  cat >"$scratch/config" <<JSON
{"architecture":"$architecture","os":"linux","created":"$created","config":{"User":"$user:$user","Entrypoint":["/$name"],
"Cmd":["run"],"WorkingDir":"/","ExposedPorts":{"8080/tcp":{}},"Labels":{
"org.opencontainers.image.title":"$name","org.opencontainers.image.description":"$(about description)",
"org.opencontainers.image.source":"$(about repository)","org.opencontainers.image.licenses":"$(about license)",
"org.opencontainers.image.version":"$version","org.opencontainers.image.revision":"$revision",
"org.opencontainers.image.created":"$created"}},
"rootfs":{"type":"layers","diff_ids":["sha256:$unpacked"]},
"history":[{"created":"$created","created_by":"hack/image.sh"}]}
JSON
  add_blob "$scratch/config"
  config=$blob
  cat >"$scratch/manifest" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$size},
"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$layer_size}]}
JSON
  add_blob "$scratch/manifest"
  manifest=$blob
  echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
  cat >"$layout/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{
"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$size,
"platform":{"architecture":"$architecture","os":"linux"},
"annotations":{"io.containerd.image.name":"$reference","org.opencontainers.image.ref.name":"$version"}}]}
JSON
  # For docker load before version 25.
  cat >"$layout/manifest.json" <<JSON
[{"Config":"blobs/sha256/$config","RepoTags":["$reference"],"Layers":["blobs/sha256/$layer"]}]
JSON
  mkdir -p "$(dirname "$1")"
  pack "$layout" "$1"
  say "$reference, linux/$architecture, sha256:$manifest"
  say "$1: $((layer_size / 1024)) KiB compressed, the binary $(($(stat -c %s "$binary") / 1024)) KiB"
}

case ${1:-} in
  binary)
    build_binary
    echo "$binary"
    ;;
  root) lay_out "${2:?a directory}" ;;
  archive) archive "${2:?a file}" ;;
  *) die "usage: $(basename "$0") binary | root DIRECTORY | archive FILE" ;;
esac
