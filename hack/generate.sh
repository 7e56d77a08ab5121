#!/usr/bin/env bash
# Generates the CustomResourceDefinition, the rules for Secrets and docs/reference/ from the Rust sources, and the chart's
# README and the manifests of deploy/ from the chart.
#
#   generate.sh           write it into the working tree
#   generate.sh --check   print the differences from the working tree; exit code 1 if there are any
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Generates into a separate folder first: a failure must not leave a partial result.
out=target/generated
chart=charts/tokensource-operator
namespace=tokensource-system
rm -rf $out
mkdir -p $out/crds $out/charts $out/docs/reference $out/deploy/base $out/deploy/overlays/cluster $out/deploy/overlays/namespaced \
  $out/deploy/overlays/pernamespace $out/deploy/overlays/team

${CARGO:-cargo} run --quiet -- crd >$out/crds.yaml
awk -v dir=$out/crds/tokensource.dev_ '
  BEGIN { file = dir "tokensources.yaml" }
  /^---$/ { file = dir "clustertokenissuers.yaml"; next }
  { print >file }
' $out/crds.yaml
rm $out/crds.yaml
for page in api flags; do
  ${CARGO:-cargo} run --quiet --example reference -- $page >$out/docs/reference/$page.md
done

cp -R $chart $out/charts/
cp $out/crds/tokensource.dev_tokensources.yaml $out/$chart/files/crd.yaml
cp $out/crds/tokensource.dev_clustertokenissuers.yaml $out/$chart/files/crd-issuers.yaml
# Runbooks of the release, not of a branch that goes on.
version=$(sed -n 's/^appVersion: *//p' $chart/Chart.yaml)
sed -E "s#/blob/v[^/]+/docs/#/blob/v$version/docs/#" $chart/files/alerts.yaml >$out/$chart/files/alerts.yaml
${CARGO:-cargo} run --quiet --package tokensource-api --example secret_rules >$out/$chart/files/secret-rules.json
# Assigned first: `set -e` ignores a failure inside an argument.
helm=$(hack/tools.sh helm)/helm
helm_docs=$(hack/tools.sh helm-docs)/helm-docs
"$helm_docs" --chart-search-root $out/charts --sort-values-order file --log-level warning --dry-run >$out/README.md
[ -s $out/README.md ] # helm-docs only warns of an error
mv $out/README.md $out/$chart/README.md

# manifests FILE OPTION...: renders the chart with these options, without the labels of a Helm release.
manifests() {
  local file=$1
  shift
  "$helm" template tokensource-operator $out/$chart --namespace $namespace --skip-tests --set crds.keep=false "$@" >$out/rendered.yaml
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
# shellcheck disable=SC2046 # splits into words
{
  manifests base/operator.yaml $(only serviceaccount deployment service poddisruptionbudget networkpolicy)
  manifests overlays/cluster/crd.yaml $(only crd)
  manifests overlays/cluster/rbac.yaml $(only rbac rbac-people)
  manifests overlays/cluster/admission-policy.yaml $(only admission-policy)
  manifests overlays/pernamespace/rbac-served.yaml --set rbac.mode=perNamespace $(only rbac-served)
  manifests overlays/team/rbac.yaml --set "namespaces={$namespace}" $(only rbac)
  manifests overlays/namespaced/admission-policy.yaml --set "namespaces={$namespace}" $(only admission-policy)
}
manifests rendered
{
  sed 1q $out/deploy/rendered
  cat deploy/overlays/cluster/namespace.yaml
  sed 1d $out/deploy/rendered
} >$out/deploy/install.yaml
rm $out/deploy/rendered
${CARGO:-cargo} run --quiet --example olm_bundle -- $out/deploy/install.yaml $out/deploy/olm

if [ "${1:-}" != --check ]; then
  cp -R $out/. .
  exit
fi
drifted=0
while read -r file; do
  diff -u "$file" "$out/$file" || drifted=1
done < <(cd $out && find . -type f)
[ $drifted = 0 ] || { echo "generated files are out of date: run 'make generate' and commit the result" >&2; exit 1; }
