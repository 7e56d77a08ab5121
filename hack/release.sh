#!/usr/bin/env bash
# Checks and describes a release: docs/releasing.md.
#
#   release.sh check vX.Y.Z            fail if a file with the version does not have this one
#   release.sh notes vX.Y.Z [DIGEST]   print the changes, and how to install and verify it (DIGEST is the image's)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command=${1:-} tag=${2:-} digest=${3:-}
case $command-$tag in
  check-v[0-9]* | notes-v[0-9]*) ;;
  *)
    echo "usage: $(basename "$0") check vX.Y.Z | notes vX.Y.Z [DIGEST]" >&2
    exit 1
    ;;
esac
version=${tag#v}
image=ghcr.io/tokensource/tokensource-operator
repository=https://github.com/tokensource/tokensource-operator

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

## Verify

\`\`\`bash
identity=$repository/.github/workflows/release.yml@refs/tags/$tag
issuer=https://token.actions.githubusercontent.com
cosign verify --certificate-identity \$identity --certificate-oidc-issuer \$issuer $image:$version
cosign verify-attestation --type cyclonedx --certificate-identity \$identity --certificate-oidc-issuer \$issuer $image:$version
gh attestation verify oci://$image:$version --repo ${repository#https://github.com/}
\`\`\`
NOTES
