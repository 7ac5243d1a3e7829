#!/bin/sh
# serve.sh with a relightd that only says how it was started: the folders that the examples' READMEs
# name must be there, made anew each time, and not while a daemon serves from them.
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
daemon=''
finish() {
  [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
die() { echo "serve_test: $*"; exit 1; }
serve() { "$source/examples/serve.sh" "$work/build/release" "$@" >"$work/out" 2>&1; }

mkdir -p "$work/build/release/server" "$work/build/release/proto/python"
ln -s "$source/dev" "$source/examples" "$work/"
cat >"$work/build/release/server/relightd" <<'EOF'
#!/bin/sh
ls "$2"/*/model.textproto
echo "$*" >"$STARTED"
[ -z "${STAY:-}" ] || exec sleep 60
EOF
chmod +x "$work/build/release/server/relightd"
export STARTED="$work/arguments"
mkfifo "$work/started"

for readme in "$source"/examples/*/README.md; do
  name=$(basename "$(dirname "$readme")")
  serve "$name" || { cat "$work/out"; die "$name is not served"; }
  grep -qx "models/$name/model.textproto" "$work/out" || { cat "$work/out"; die "$name has no model"; }
  grep -qx "./dev serve $name" "$readme" || die "the README of $name does not serve it"
  grep -oE '(\./|examples/|build/)[^ ]+' "$readme" >"$work/names"
  while read -r path; do
    [ -e "$work/$path" ] || die "the README of $name names $path, which there is not"
  done <"$work/names"
done

left=$work/build/release/serve/simplenet/models/simplenet/checkpoints/step-1.pt
touch "$left"
STAY=1 STARTED=$work/started "$source/examples/serve.sh" "$work/build/release" >/dev/null &
daemon=$!
arguments=$(timeout 60 head -n 1 "$work/started") || die 'relightd is not started'
case "$arguments" in *'--model-repository models'*) ;; *) die "relightd was started with $arguments" ;; esac
[ ! -e "$left" ] || die 'a checkpoint of the time before is served again'
touch "$left"
if serve simplenet; then die 'it is served twice'; fi
grep -q 'simplenet is being served from' "$work/out" || { cat "$work/out"; die 'it does not say who is in the way'; }
[ -e "$left" ] || die 'what another daemon serves was removed'

if serve nothing; then die 'it serves what there is not'; fi
grep -q "no example 'nothing', only .*simplenet" "$work/out" || { cat "$work/out"; die 'it does not say what there is'; }
