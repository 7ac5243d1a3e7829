#!/bin/sh
# bare_test.sh [SUITE]: a fresh clone on a Debian with nothing installed, where the README's two
# commands are typed as they stand. Needs root, git, mmdebstrap and util-linux's unshare
# ("./dev test-bare" sees to that). A CCACHE_DIR in the environment is used in there too.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
suite=${1:-bookworm}
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
root=$work/root

say() { printf '==> %s\n' "$*"; }

say "a bare $suite"
"$here/debian_root.sh" "$suite" "$root"
for tool in make g++ cmake git sudo; do
  [ ! -e "$root/usr/bin/$tool" ] || { echo "bare_test: $tool is there: not bare" >&2; exit 1; }
done
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
# How to reach the package registry of npm is this machine's business.
[ ! -f "$HOME/.npmrc" ] || cp "$HOME/.npmrc" "$root/root/.npmrc"
: >"$root/root/node-ca.crt"
[ -z "${NODE_EXTRA_CA_CERTS:-}" ] || cp -L "$NODE_EXTRA_CA_CERTS" "$root/root/node-ca.crt"
git clone -q --no-hardlinks "$source" "$root/root/relight"
mkdir -p "$root/ccache"

# Mounts end with the shell in there.
for command in demo test; do
  say "./dev $command"
  # shellcheck disable=SC2016 # Expanded by the inner shell.
  unshare --mount sh -ec '
    root=$1 command=$2 cache=$3
    mount --rbind /proc "$root/proc"
    mount --rbind /dev "$root/dev"
    if [ -n "$cache" ]; then mount --bind "$cache" "$root/ccache"; fi
    exec env -i HOME=/root TERM=dumb LANG=C.UTF-8 CCACHE_DIR=/ccache \
      NODE_EXTRA_CA_CERTS=/root/node-ca.crt \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      chroot "$root" sh -ec "cd /root/relight && exec ./dev \"\$1\"" sh "$command"
  ' sh "$root" "$command" "${CCACHE_DIR:-}"
done
say 'both commands work on a bare machine'
