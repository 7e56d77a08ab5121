#!/usr/bin/env bash
# Checks and describes a release: docs/releasing.md.
#
#   release.sh check vX.Y.Z            fail if a file with the version does not have this one
#   release.sh check-commit COMMIT     fail if it is not a commit of main whose CI succeeded (with the GitHub CLI, gh)
#   release.sh pin vX.Y.Z DIGEST       write the image's digest into the chart, the manifests and the bundle
#   release.sh notes vX.Y.Z [DIGEST]   print the changes, and how to install and verify it (DIGEST is the image's)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command=${1:-} tag=${2:-} digest=${3:-}
case $command-$tag in
  check-v[0-9]* | notes-v[0-9]* | pin-v[0-9]* | check-commit-?*) ;;
  *)
    echo "usage: $(basename "$0") check vX.Y.Z | check-commit COMMIT | pin vX.Y.Z DIGEST | notes vX.Y.Z [DIGEST]" >&2
    exit 1
    ;;
esac
image=ghcr.io/tokensource/tokensource-operator
repository=https://github.com/tokensource/tokensource-operator

if [ "$command" = check-commit ]; then
  commit=$(git rev-parse --verify "$tag^{commit}")
  git merge-base --is-ancestor "$commit" refs/remotes/origin/main || {
    echo "$commit is not on main: merge it, and tag the commit of main" >&2
    exit 1
  }
  # A pull request's run has tested another commit: the merge that GitHub made for it.
  runs=$(gh run list --repo "${repository#https://github.com/}" --workflow ci.yml --branch main --event push \
    --commit "$commit" --status success --limit 1 --json url --jq '.[].url')
  [ -n "$runs" ] || {
    echo "CI has not succeeded for $commit on main: wait for it, then run this workflow again" >&2
    exit 1
  }
  echo "$commit: $runs"
  exit
fi
version=${tag#v}

if [ "$command" = pin ]; then
  [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || {
    echo "'$digest' is not a digest like sha256:0123..." >&2
    exit 1
  }
  # pin FILE FROM TO: replaces the one line FROM.
  pin() {
    [ "$(grep -Fxc -- "$2" "$1")" = 1 ] || {
      echo "$1 does not have exactly one line '$2'" >&2
      exit 1
    }
    sed -i.unpinned "s#^$2\$#$3#" "$1"
    rm "$1.unpinned"
  }
  pin charts/tokensource-operator/values.yaml '  digest: ""' "  digest: $digest"
  for file in deploy/install.yaml deploy/base/operator.yaml; do
    pin $file "          image: $image:$version" "          image: $image:$version@$digest"
  done
  # The Deployment, the annotation for catalogues, and what mirrors copy.
  for member in '                image' '    containerImage' '  - image'; do
    pin deploy/olm/manifests/tokensource-operator.clusterserviceversion.yaml "$member: $image:$version" \
      "$member: $image:$version@$digest"
  done
  exit
fi

# The changelog's section of this version, without the heading.
changes() {
  awk -v heading="## [$version]" 'index($0, heading) == 1 { inside = 1; next } inside && /^## / { exit } inside' CHANGELOG.md
}

failures=0
names() { # FILE REGULAR_EXPRESSION
  if ! grep -Eqx "$2" "$1"; then
    echo "$1 does not name version $version: no line like $2" >&2
    failures=$((failures + 1))
  fi
}

if [ "$command" = check ]; then
  escaped=${version//./\\.}
  names Cargo.toml "version = \"$escaped\""
  names charts/tokensource-operator/Chart.yaml "version: \"?$escaped\"?"
  names charts/tokensource-operator/Chart.yaml "appVersion: \"?$escaped\"?"
  names docs/kubectl-plugin.md "version=v$escaped"
  names docs/kubectl-plugin.md "\\\$version = \"v$escaped\""
  names docs/kubectl-plugin.md ".*/download/v$escaped/tokensource\.yaml"
  names docs/kubectl-plugin.md ".*/download/v$escaped/kubectl-tokensource\.rb"
  if [ -z "$(changes)" ]; then
    echo "CHANGELOG.md has no section [$version], or an empty one" >&2
    failures=$((failures + 1))
  fi
  exit $((failures > 0))
fi

changes
cat <<NOTES

## Install

\`\`\`bash
helm install tokensource-operator oci://ghcr.io/tokensource/charts/tokensource-operator --version $version \\
  --namespace tokensource-system --create-namespace
\`\`\`

Image: \`$image:$version${digest:+@$digest}\`, for amd64 and arm64.

\`kubectl tokensource\`: one of the archives below, or \`kubectl krew install --manifest-url=$repository/releases/download/$tag/tokensource.yaml\`.

## Verify

\`\`\`bash
identity=$repository/.github/workflows/release.yml@refs/tags/$tag
issuer=https://token.actions.githubusercontent.com
cosign verify --certificate-identity \$identity --certificate-oidc-issuer \$issuer $image:$version
cosign verify-blob --bundle SHA256SUMS.bundle --certificate-identity \$identity --certificate-oidc-issuer \$issuer SHA256SUMS
cosign verify-attestation --type cyclonedx --certificate-identity \$identity --certificate-oidc-issuer \$issuer $image:$version
gh attestation verify oci://$image:$version --repo ${repository#https://github.com/}
\`\`\`
NOTES
