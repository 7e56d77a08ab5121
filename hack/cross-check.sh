#!/usr/bin/env bash
# Checks that the commands compile for the platforms of a release, without their machines: `cargo check`, and zig as the C
# compiler of aws-lc. It links nothing; CI builds on each platform.
#
#   cross-check.sh [TARGET...]   default: all whose standard library is installed (rustup target add TARGET)
#
# ZIG is zig's command, by default `zig`; with its package for Python: ZIG="python3 -m ziglang".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

zig=${ZIG:-zig}
# shellcheck disable=SC2086 # a command and its arguments
$zig version >/dev/null || { echo "zig is missing: install it, or set ZIG" >&2; exit 1; }
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

# Those that a release builds for Windows (-msvc) need Microsoft's headers: their siblings stand for them.
targets=(aarch64-unknown-linux-gnu x86_64-apple-darwin aarch64-apple-darwin x86_64-pc-windows-gnu aarch64-pc-windows-gnullvm)
[ $# = 0 ] || targets=("$@")
libraries=$(rustc --print sysroot)/lib/rustlib checked=0

for target in "${targets[@]}"; do
  if ! [ -d "$libraries/$target/lib" ]; then
    echo "cross-check: $target is left out: rustup target add $target" >&2
    [ $# = 0 ] || exit 1
    continue
  fi
  case $target in
    *-linux-gnu) of_zig=${target%%-*}-linux-gnu ;;
    *-apple-darwin) of_zig=${target%%-*}-macos ;;
    *) of_zig=${target%%-*}-windows-gnu ;;
  esac
  # zig takes its own names of platforms alone.
  cat >"$tools/cc-$target" <<CC
#!/usr/bin/env bash
arguments=()
for argument in "\$@"; do case \$argument in --target=*) ;; *) arguments+=("\$argument") ;; esac; done
exec $zig cc -target $of_zig "\${arguments[@]}"
CC
  printf '#!/bin/sh\nexec %s ar "$@"\n' "$zig" >"$tools/ar"
  chmod +x "$tools/cc-$target" "$tools/ar"
  echo "cross-check: $target" >&2
  env "CC_${target//-/_}=$tools/cc-$target" "AR_${target//-/_}=$tools/ar" AWS_LC_SYS_PREBUILT_NASM=1 \
    AWS_LC_SYS_CMAKE_BUILDER=0 cargo check --locked --target "$target" --bins
  checked=$((checked + 1))
done
[ $checked -gt 0 ] || { echo "cross-check: no target is installed" >&2; exit 1; }
