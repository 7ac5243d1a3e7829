#!/bin/sh
# ./dev with stand-ins for the tools that it calls: what is missing or finds nothing must not pass.
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export RELIGHT_NO_INSTALL=1 WORK="$work"
mkdir "$work/bin" "$work/tree"
cp "$source/dev" "$work/tree/"
for tool in sh dirname tr xargs awk nproc; do
  ln -s "$(command -v "$tool")" "$work/bin/$tool"
done

tool() { # tool NAME: what stdin says.
  { echo '#!/bin/sh'; cat; } >"$work/bin/$1"
  chmod +x "$work/bin/$1"
}
# passes|fails COMMAND...: of ./dev, with no other tools than those above.
dev() { PATH=$work/bin "$work/tree/dev" "$@" >"$work/out" 2>&1; }
die() { cat "$work/out"; echo "dev_test: $*"; exit 1; }
passes() { dev "$@" || die "./dev $* failed"; }
fails() { if dev "$@"; then die "./dev $* passed"; fi; }

tool clang-format <<'EOF'
printf '%s\n' "$@" >"$WORK/asked"
exit "${CLANG_FORMAT:-0}"
EOF
fails format --check
grep -q 'git' "$work/out" || die 'it does not say that git is missing'
echo 'echo "fatal: not a git repository" >&2; exit 128' | tool git
fails format --check
echo 'exit 0' | tool git
fails format --check
[ ! -e "$work/asked" ] || die 'clang-format ran although there is no source'
echo 'echo a.cc; echo "b c.h"' | tool git
passes format --check
printf '%s\n' --dry-run --Werror a.cc 'b c.h' | cmp -s - "$work/asked" || die 'clang-format got other words'
passes format
printf '%s\n' -i a.cc 'b c.h' | cmp -s - "$work/asked" || die 'clang-format got other words'
rm "$work/asked"
fails format --chekc
[ ! -e "$work/asked" ] || die 'a mistyped flag formatted the sources'
export CLANG_FORMAT=1
fails format --check

passes jobs
[ "$(cat "$work/out")" -ge 1 ] || die './dev jobs prints no number'
if grep 'cmake --build' "$source/Dockerfile" | grep -v ' -j '; then
  die 'the Dockerfile builds with no limit on compilers'
fi
