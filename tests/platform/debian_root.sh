#!/bin/sh
# debian_root.sh SUITE TARGET [mmdebstrap's options]: a Debian release with nothing in it, the way its
# container images are made. TARGET is a folder or a .tar file. Needs root and mmdebstrap.
# The mirror is the one that this machine's apt uses.
set -eu
suite=$1 target=$2
shift 2

mirror=$(sed -n -E 's/^(deb|URIs:) *(\[[^]]*\] *)?(https?:[^ ]*).*/\3/p' \
  /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
  grep -v security | head -n 1)
[ -n "$mirror" ] || { echo "debian_root: apt's sources name no mirror" >&2; exit 1; }

# shellcheck disable=SC2016 # mmdebstrap expands $1 itself.
exec mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook='echo "DPkg::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb\"; };" >$1/etc/apt/apt.conf.d/docker-clean' \
  --customize-hook='rm -rf $1/var/lib/apt/lists/* $1/etc/resolv.conf $1/etc/hostname' \
  "$@" "$suite" "$target" "deb $mirror $suite main" "deb $mirror $suite-updates main"
