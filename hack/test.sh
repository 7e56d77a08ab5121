#!/usr/bin/env bash
# Runs all tests, for `make test`. Arguments are passed to `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A missing tool fails tests, so report it first.
hack/doctor.sh --quiet

echo "== npm packages of the test servers" >&2
make --silent npm-packages

echo "== control plane: etcd, kube-apiserver, kube-controller-manager" >&2
bin=$(hack/control-plane.sh build)
echo "   $("$bin/kube-apiserver" --version) in $bin" >&2

echo "== Helm" >&2
echo "   in $(hack/tools.sh helm)" >&2

echo "== promtool" >&2
echo "   in $(hack/tools.sh prometheus)" >&2

# The only tests that may be left out: its distribution comes from Maven Central, which not every machine reaches.
echo "== Keycloak" >&2
left_out=
if ! hack/keycloak.sh build >/dev/null; then
  left_out="Keycloak cannot be had (see above): keycloak:: is left out"
  echo "   $left_out" >&2
  separator=--
  for argument; do if [ "$argument" = -- ]; then separator=; fi; done
  # shellcheck disable=SC2086 # nothing if it is there already
  set -- "$@" $separator --skip keycloak::
fi

echo "== cargo test: everything" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

awk '/^test result: / { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
if [ $status -ne 0 ] && ! grep -q '^test result: FAILED' "$log"; then
  echo "and the tests did not run to the end: see above" >&2
fi
if [ -n "$left_out" ]; then echo "$left_out" >&2; fi
exit $status
