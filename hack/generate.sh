#!/usr/bin/env bash
# Writes what is generated: the CustomResourceDefinition from the Rust types, and from the chart its README and the plain
# manifests of deploy/.
#
#   generate.sh           write it into the working tree
#   generate.sh --check   only tell where the working tree differs; exit code 1 where it does
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# All of it first beside the working tree: a failure must not leave half of it.
out=target/generated
chart=charts/tokensource-operator
namespace=tokensource-system
rm -rf $out
mkdir -p $out/crds $out/charts $out/deploy/base $out/deploy/overlays/cluster $out/deploy/overlays/namespaced

${CARGO:-cargo} run --quiet -- crd >$out/crds/tokensource.dev_tokensources.yaml

cp -R $chart $out/charts/
cp $out/crds/tokensource.dev_tokensources.yaml $out/$chart/files/crd.yaml
# A variable of its own: a failure inside an argument would go unseen.
helm=$(hack/tools.sh helm)/helm
helm_docs=$(hack/tools.sh helm-docs)/helm-docs
"$helm_docs" --chart-search-root $out/charts --sort-values-order file --log-level warning --dry-run >$out/README.md
[ -s $out/README.md ] # helm-docs warns of an error and goes on
mv $out/README.md $out/$chart/README.md

# manifests FILE OPTION...: what the chart renders with these options, without what is only true of a Helm release.
manifests() {
  local file=$1
  shift
  "$helm" template tokensource-operator $out/$chart --namespace $namespace --set crds.keep=false "$@" >$out/rendered.yaml
  {
    echo "# Generated from $chart by 'make generate'."
    sed -e '/^ *helm\.sh\/chart:/d' -e '/^ *app\.kubernetes\.io\/managed-by: Helm$/d' -e '/^# Source: /d' $out/rendered.yaml
  } >"$out/deploy/$file"
  rm $out/rendered.yaml
}
only() {
  local template options=()
  for template in "$@"; do options+=(--show-only "templates/$template.yaml"); done
  printf '%s\n' "${options[@]}"
}
# shellcheck disable=SC2046 # words
{
  manifests base/operator.yaml $(only serviceaccount deployment service poddisruptionbudget networkpolicy)
  manifests overlays/cluster/crd.yaml $(only crd)
  manifests overlays/cluster/rbac.yaml $(only rbac rbac-people)
  manifests overlays/cluster/fences.yaml $(only fences)
  manifests overlays/namespaced/rbac.yaml --set "namespaces={$namespace}" $(only rbac)
}
manifests rendered
{
  sed 1q $out/deploy/rendered
  cat deploy/overlays/cluster/namespace.yaml
  sed 1d $out/deploy/rendered
} >$out/deploy/install.yaml
rm $out/deploy/rendered

if [ "${1:-}" != --check ]; then
  cp -R $out/. .
  exit
fi
drifted=0
while read -r file; do
  diff -u "$file" "$out/$file" || drifted=1
done < <(cd $out && find . -type f)
[ $drifted = 0 ] || { echo "what is generated has drifted: run 'make generate' and commit it" >&2; exit 1; }
