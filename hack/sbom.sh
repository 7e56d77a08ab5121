#!/usr/bin/env bash
# Writes the bill of materials in CycloneDX: every crate in the operator for Linux.
#
#   sbom.sh FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

to=${1:?usage: sbom.sh FILE}
tool=$(hack/cargo-tools.sh cargo-cyclonedx)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# It can write only beside Cargo.toml, and does for every member of the workspace.
written=.sbom-$$
trap 'find . -name target -prune -o -name node_modules -prune -o -name "$written.json" -exec rm -f {} +' EXIT
"$tool/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu \
  --override-filename "$written"
mkdir -p "$(dirname "$to")"
mv "$written.json" "$to"
echo "$to: $(grep -c '"purl"' "$to") packages" >&2
