#!/usr/bin/env bash
# Builds the manual, a site with search, from README.md and docs/ into target/docs, and checks its links.
#
# The pages keep their paths, so that a link works on the forge and on the site.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mdbook=$(hack/cargo-tools.sh mdbook)/mdbook
PATH=$(hack/cargo-tools.sh mdbook-mermaid):$PATH

stage=target/docs-source
site=$PWD/target/docs
rm -rf "$stage" "$site"
mkdir -p "$stage/src"
cp docs/book/* "$stage"
mdbook-mermaid install "$stage" >&2 # adds its scripts
# mdBook wants the table of contents at the root.
sed -e 's#](\([a-z]\)#](docs/\1#' -e 's#](\.\./#](#' docs/SUMMARY.md >"$stage/src/SUMMARY.md"
# The pages of the table of contents, pictures, and other files that a page links to.
sed -n 's#.*](\(.*\.md\))$#\1#p' "$stage/src/SUMMARY.md" | while read -r page; do
  mkdir -p "$stage/src/$(dirname "$page")"
  cp "$page" "$stage/src/$page"
done
for file in LICENSE deploy/overlays/pernamespace/opt-in.yaml deploy/policies/*.yaml examples/*/*.yaml; do
  mkdir -p "$stage/src/$(dirname "$file")"
  cp "$file" "$stage/src/$file"
done
if [ -d docs/pictures ]; then cp -R docs/pictures "$stage/src/docs/"; fi

"$mdbook" build --dest-dir "$site" "$stage"
hack/docs-check.py "$site"
echo "$site/index.html"
