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
[ ! -f "$HOME/.npmrc" ] || cp "$HOME/.npmrc" "$root/srv/.npmrc"
authority=
if [ -n "${NODE_EXTRA_CA_CERTS:-}" ]; then
  authority=/srv/authority.crt
  cp -L "$NODE_EXTRA_CA_CERTS" "$root$authority"
fi
git clone -q --no-hardlinks "$source" "$root/srv/relight"
mkdir -p "$root/ccache"

# Mounts end with the shell in there.
for command in demo test; do
  say "./dev $command"
  # shellcheck disable=SC2016 # Expanded by the inner shell.
  unshare --mount sh -ec '
    root=$1 command=$2 cache=$3 authority=$4
    mount --rbind /proc "$root/proc"
    mount --rbind /dev "$root/dev"
    if [ -n "$cache" ]; then mount --bind "$cache" "$root/ccache"; fi
    exec env -i HOME=/srv TERM=dumb LANG=C.UTF-8 CCACHE_DIR=/ccache \
      ${authority:+NODE_EXTRA_CA_CERTS="$authority"} \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      chroot "$root" sh -ec "cd /srv/relight && exec ./dev \"\$1\"" sh "$command"
  ' sh "$root" "$command" "${CCACHE_DIR:-}" "$authority"
done
say 'both commands work on a bare machine'
