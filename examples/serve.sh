#!/bin/sh
# serve.sh BUILD_FOLDER [EXAMPLE]: serves an example (simplenet) until Ctrl-C. The model starts without
# weights, in BUILD_FOLDER/serve/EXAMPLE, which is made anew: a trainer that begins again saves smaller
# versions than it has left there.
set -eu
build=$(cd "$1" && pwd)
name=${2:-simplenet}
examples=$(cd "$(dirname "$0")" && pwd)
work=$build/serve/$name
die() { printf 'serve: %s\n' "$*" >&2; exit 1; }

[ -e "$examples/$name/models/$name/model.textproto" ] ||
  die "there is no example '$name', only $(cd "$examples" && echo */models | sed 's,/models,,g')"
mkdir -p "$build/serve"
# The daemon inherits the lock.
exec 9>"$work.lock"
flock -n 9 || die "$name is being served from $work already"
rm -rf "$work"
mkdir -p "$work/models/$name/checkpoints" "$work/snapshots" "$work/state"
cp "$examples/$name/models/$name/model.textproto" "$work/models/$name/"

cat <<EOF
Serving $name from $work,
whose checkpoints folder begins empty: there are no answers until the trainer has saved. In two other
terminals:

  python3 $examples/$name/train.py $work/models/$name/checkpoints
  PYTHONPATH=$build/proto/python python3 $examples/$name/client.py

and for what happens in between:

  RELIGHT_ADMIN_SOCKET=$work/state/admin.sock $build/client/relightctl watch $name

EOF
# Paths of sockets may not be long.
cd "$work"
exec "$build/server/relightd" --model-repository models --state-dir state --snapshot-dir snapshots
