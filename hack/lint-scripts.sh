#!/usr/bin/env bash
# Checks the scripts, the workflows, and that Dependabot's configuration names every module.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

shellcheck -x hack/*.sh .ci/run
"$(hack/tools.sh actionlint)/actionlint"

failures=0
for file in $(git ls-files '*go.mod' '*package.json' '*Cargo.toml'); do
  case $file in
    crates/* | tests/e2e/*) continue ;; # members of the workspace, which / covers
    hack/control-plane* | hack/node/*) continue ;; # the modules of Kubernetes are pinned together
  esac
  case $file in */*) folder=/${file%/*} ;; *) folder=/ ;; esac
  if ! grep -Eq "[\"[ ]$folder([\",]|\$)" .github/dependabot.yml; then
    echo ".github/dependabot.yml does not name $folder" >&2
    failures=1
  fi
done
exit $failures
