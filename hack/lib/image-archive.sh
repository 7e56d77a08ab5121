# shellcheck shell=bash
# Images for the pods of a node, without Docker; to be sourced.

# image_archive DIRECTORY NAME:TAG CONFIGURATION FILE: an archive for docker load, ctr and kind, of one layer with the files of
# the directory. CONFIGURATION: the members of the image's `config`.
image_archive() {
  local architecture scratch layer
  case $(uname -m) in x86_64) architecture=amd64 ;; *) architecture=arm64 ;; esac
  scratch=$(mktemp -d)
  (cd "$1" && tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$scratch/layer.tar" -- *)
  layer=$(sha256sum "$scratch/layer.tar" | cut -d ' ' -f 1)
  cat >"$scratch/config.json" <<JSON
{"architecture":"$architecture","os":"linux","config":{$3},"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
  echo "[{\"Config\":\"config.json\",\"RepoTags\":[\"$2\"],\"Layers\":[\"layer.tar\"]}]" >"$scratch/manifest.json"
  tar -C "$scratch" -cf "$4" manifest.json config.json layer.tar
  rm -rf "$scratch"
}
