#!/bin/sh
# serve.sh BUILD_FOLDER: serves the example until Ctrl-C, from a folder of its own.
set -eu
build=$1
here=$(cd "$(dirname "$0")" && pwd)
work=${RELIGHT_SERVE_DIR:-$(mktemp -d)}

mkdir -p "$work/snapshots" "$work/state"
[ -d "$work/models" ] || cp -R "$here/models" "$work/models"
mkdir -p "$work/models/simplenet/checkpoints"
cp "$here/checkpoints/step-000100.pt" "$work/models/simplenet/checkpoints/"

cat <<EOF
Serving the example from $work. In another terminal:

  export RELIGHT_ADMIN_SOCKET=$work/admin.sock
  $build/client/relightctl infer simplenet --input '[[1,1,1,1,1,0,0,0,0,0]]'
  $build/client/relightctl status
  cp $here/checkpoints/step-000200.pt $work/models/simplenet/checkpoints/
  $build/client/relightctl snapshot simplenet

EOF
exec "$build/server/relightd" --model-repository "$work/models" --state-dir "$work/state" \
  --snapshot-dir "$work/snapshots" --admin-socket "$work/admin.sock"
