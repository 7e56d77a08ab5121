#!/usr/bin/env bash
# Runs Keycloak for tests, from its distribution in Maven Central.
#
#   keycloak.sh build    fetch and build what is not cached; prints the directory. Ends with an error where it cannot be had
#   keycloak.sh run --trust FILE --host ADDRESS --until-stdin-closes
#                        start it on a free port of this machine's ADDRESS (127.0.0.1), trusting the certificates of FILE; prints "READY VERSION URL".
#                        KC_BOOTSTRAP_ADMIN_USERNAME and KC_BOOTSTRAP_ADMIN_PASSWORD of the environment name an administrator
#
# KEYCLOAK=26.5.7 in the environment picks the version, KEYCLOAK_SECONDS the time limit of each step of the build. Needs a JDK, 17 or later, and to fetch Maven. Runs on bash 3.2 (macOS).
set -euo pipefail

tool=keycloak
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib/processes.sh
. "$here/lib/processes.sh"
# shellcheck source=hack/lib/go-tools.sh
. "$here/lib/go-tools.sh"

version=${KEYCLOAK:-26.7.3}
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
# In 26.5 they are previews.
features=client-auth-federated,kubernetes-service-accounts
home=$cache/keycloak-$version
# Fetching 180 MB, and building: a registry that hangs must not hold up all tests.
max_seconds=${KEYCLOAK_SECONDS:-600}
# As bin/kc.sh does, without its shell in between, whose child would outlive the time limit and this process; and for a short life.
keycloak=(java -Xms64m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
  -Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory
  --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.util.concurrent=ALL-UNNAMED
  --add-opens=java.base/java.security=ALL-UNNAMED --add-opens=java.base/java.lang=ALL-UNNAMED
  -Dkc.home.dir="$home" -Djboss.server.config.dir="$home/conf"
  -Djava.util.logging.manager=org.jboss.logmanager.LogManager -Dpicocli.disable.closures=true
  -cp "$home/lib/quarkus-run.jar" io.quarkus.bootstrap.runner.QuarkusEntryPoint)

# within SECONDS LOG COMMAND...: fails with the end of its log, also if it takes longer.
within() {
  local log=$2 deadline=$((SECONDS + $1))
  shift 2
  start "$log" "$@"
  while alive "$pid"; do
    if [ $SECONDS -ge $deadline ]; then
      kill -KILL "$pid" 2>/dev/null || true
      tail -n 5 "$log" >&2
      die "not finished in time: $1"
    fi
    nap 1
  done
  wait "$pid" || {
    tail -n 5 "$log" >&2
    die "$1 failed (see above)"
  }
}

# The distribution is what it was when its version was chosen.
check() {
  local want got
  case $version in
    26.7.3) want=27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f ;;
    26.5.7) want=7c38073ca48702f7d5e992508681d45027ba309ea2633ce8bef92343c795d729 ;;
    *) die "no SHA-256 of version $version is known: add it to hack/keycloak.sh" ;;
  esac
  got=$( (sha256sum "$1" 2>/dev/null || shasum -a 256 "$1") | cut -d ' ' -f 1)
  [ "$got" = "$want" ] || die "the SHA-256 of Keycloak $version is $got, not $want"
}

build() {
  [ -e "$home/.built" ] && return
  command -v jar >/dev/null || die "a JDK is missing, 17 or later; 'make doctor' prints the remedy"
  command -v mvn >/dev/null || die "Maven is missing, which fetches Keycloak (Debian: apt-get install maven)"
  mkdir -p "$cache"
  lock "$home.lock"
  if ! [ -e "$home/.built" ]; then
    local scratch
    scratch=$(mktemp -d "$cache/.keycloak.XXXXXX")
    remove+=("$scratch")
    say "fetching version $version once, into $home"
    within "$max_seconds" "$scratch/log" mvn -q -B -C -Dmaven.wagon.rto=60000 -Daether.connector.requestTimeout=60000 "$plugin:copy" \
      -Dartifact="org.keycloak:keycloak-quarkus-dist:$version:zip" -DoutputDirectory="$scratch"
    check "$scratch/keycloak-quarkus-dist-$version.zip"
    (cd "$scratch" && jar xf "keycloak-quarkus-dist-$version.zip")
    rm -rf "$home"
    mv "$scratch/keycloak-$version" "$home"
    say "building it"
    # Not in production: without TLS, and all data is gone at its end.
    within "$max_seconds" "$scratch/log" "${keycloak[@]}" build --db=dev-mem --features="$features" \
      --cache=local --health-enabled=false --metrics-enabled=false
    touch "$home/.built"
  fi
  rm -f "$held"
  held=
}

run() {
  local trust='' host=127.0.0.1 watch='' dir url='' deadline
  while [ $# -gt 0 ]; do
    case $1 in
      --trust) [ $# -ge 2 ] || die "--trust needs a file" && trust=$2 && shift 2 ;;
      --host) [ $# -ge 2 ] || die "--host needs an address" && host=$2 && shift 2 ;;
      --until-stdin-closes) watch=yes && shift ;;
      *) die "run: unknown argument $1" ;;
    esac
  done
  dir=$(mktemp -d "${TMPDIR:-/tmp}/tokensource-keycloak.XXXXXX")
  remove+=("$dir")
  if [ -n "$watch" ]; then watch_stdin true; fi
  build
  start "$dir/log" "${keycloak[@]}" \
    start --optimized --http-enabled=true --http-host="$host" --http-port=0 --hostname-strict=false \
    ${trust:+--truststore-paths="$trust"}
  deadline=$((SECONDS + 300))
  until [ -n "$url" ]; do
    if ! alive "$pid" || [ $SECONDS -ge $deadline ]; then
      tail -n 20 "$dir/log" >&2
      die "did not start; the end of its log is above"
    fi
    nap 0.2
    url=$(sed -n 's/.*Listening on: \(http:[^ ]*\).*/\1/p' "$dir/log")
  done
  echo "READY $version $url"
  wait "$pid" || die "ended unexpectedly"
}

case ${1:-} in
  build)
    build
    echo "$home"
    ;;
  run)
    shift
    run "$@"
    ;;
  *) die "usage: $(basename "$0") build | run [--trust FILE] [--host ADDRESS] [--until-stdin-closes]" ;;
esac
