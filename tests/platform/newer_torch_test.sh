#!/bin/sh
# newer_torch_test.sh BUILD_FOLDER [SUITE]: makes a Debian root with a newer PyTorch (trixie: 2.6) and
# runs tests/interop/newer_torch_test.py with it and the relightd of BUILD_FOLDER. Needs root and
# mmdebstrap ("./dev test-interop" sees to that). RELIGHT_INTEROP_ROOT names a folder that keeps the
# Debian root for the next run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
build=$(cd "$1" && pwd)
suite=${2:-trixie}
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
root=${RELIGHT_INTEROP_ROOT:-$work/root}

say() { printf '==> %s\n' "$*"; }

if [ ! -e "$root/usr/bin/python3" ]; then
  say "a $suite with PyTorch"
  "$here/debian_root.sh" "$suite" "$root" --include=python3-torch,python3-safetensors
fi
shared=$root/relight-interop
rm -rf "$shared"
mkdir "$shared"
say "both directions with the PyTorch of $suite"
export RELIGHT_NEWER_TORCH="env -i LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin OMP_NUM_THREADS=1 chroot $root /usr/bin/python3"
export RELIGHT_NEWER_TORCH_FOLDER="$shared:/relight-interop"
export RELIGHTD="$build/server/relightd" RELIGHTCTL="$build/client/relightctl"
export RELIGHT_SOURCE_DIR="$source" RELIGHT_TEST_DATA="$source/tests/data"
export PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
export PYTHONPATH="$build/proto/python:$source/tests/blackbox"
/usr/bin/python3 "$source/tests/interop/newer_torch_test.py"
rm -rf "$shared"
