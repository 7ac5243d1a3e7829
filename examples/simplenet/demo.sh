#!/bin/sh
# demo.sh BUILD_FOLDER: relight's story on real input. Fails loudly if any step does.
set -eu
build=$1
here=$(cd "$(dirname "$0")" && pwd)
relightd="$build/server/relightd"
relightctl="$build/client/relightctl"

work=$(mktemp -d)
daemon=''
askers=''
finish() {
  status=$?
  touch "$work/stop"
  for pid in $askers $daemon; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  if [ "$status" -ne 0 ]; then
    printf '\nThe demo FAILED. The daemon said:\n' >&2
    cat "$work/daemon.log" >&2 || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$(printf '%s' "$*" | sed "s#$build/[a-z]*/##g; s#$work#.#g")"; "$@"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

export RELIGHT_ADMIN_SOCKET="$work/admin.sock"
cp -R "$here/models" "$work/models"
watched="$work/models/simplenet/checkpoints"
mkdir -p "$watched" "$work/snapshots" "$work/state"
cp "$here/checkpoints/step-000100.pt" "$watched/"

step '1. Start the daemon on a folder with a checkpoint that torch.save wrote.'
mkfifo "$work/log"
"$relightd" --model-repository "$work/models" --state-dir "$work/state" \
  --snapshot-dir "$work/snapshots" --admin-socket "$RELIGHT_ADMIN_SOCKET" \
  --grpc-address 127.0.0.1 --grpc-port 0 --metrics-address 127.0.0.1 --metrics-port 0 \
  --port-file "$work/ports" 2>"$work/log" &
daemon=$!
# The first "serves" line says that a version answers; the rest of the log goes on into the file.
tee "$work/daemon.log" <"$work/log" | {
  listening='' served=''
  while IFS= read -r line; do
    case "$line" in *listening*) listening=1 ;; *serves*) served=1 ;; esac
    if [ -n "$listening" ] && [ -n "$served" ]; then
      touch "$work/up"
      break
    fi
  done
  cat >/dev/null
} &
waited=0
until [ -e "$work/up" ]; do
  kill -0 "$daemon" 2>/dev/null || fail 'the daemon did not start'
  waited=$((waited + 1))
  [ "$waited" -lt 600 ] || fail 'the daemon does not serve after a minute'
  sleep 0.1
done
server="127.0.0.1:$(sed -n 's/^grpc=//p' "$work/ports")"
show "$relightctl" status

step '2. Ask it.'
ask() { "$relightctl" --server "$server" infer simplenet --input '[[1,1,1,1,1,0,0,0,0,0],[0,0,0,0,0,1,1,1,1,1]]' "$@"; }
ask
ask --json >"$work/first.json"

step '3. Push a newer checkpoint while four clients ask without pause.'
for asker in 1 2 3 4; do
  : >"$work/answers.$asker"
  (
    while [ ! -e "$work/stop" ]; do
      if answer=$(ask --json 2>&1); then
        printf '%s\n' "$(printf '%s' "$answer" | tr -d '\n')" >>"$work/answers.$asker"
      else
        printf '%s\n' "$answer" >>"$work/failures"
      fi
    done
  ) &
  askers="$askers $!"
done
version() { sed -n 's/.*"version": *"\{0,1\}\([0-9]*\).*/\1/p' "$1" | head -n 1; }
# answered COUNT VERSION: waits until each client has COUNT answers more than now, the last of which
# must come from VERSION.
answered() {
  for asker in 1 2 3 4; do
    wanted=$(($(grep -c '' "$work/answers.$asker" || true) + $1))
    waited=0
    until [ "$(grep -c '' "$work/answers.$asker" || true)" -ge "$wanted" ]; do
      [ ! -e "$work/failures" ] || { cat "$work/failures" >&2; fail 'requests failed'; }
      waited=$((waited + 1))
      [ "$waited" -lt 600 ] || fail "client $asker got no answer within a minute"
      sleep 0.1
    done
    tail -n 1 "$work/answers.$asker" >"$work/last"
    [ "$(version "$work/last")" = "$2" ] ||
      fail "version $(version "$work/last") answered client $asker, not $2"
  done
}
answered 1 100
show cp "$here/checkpoints/step-000200.pt" "$watched/"
show "$relightctl" reload simplenet
answered 2 200 # The second is to a request that was made after the swap.
ask
ask --json >"$work/second.json"
cmp -s "$work/first.json" "$work/second.json" && fail 'the answers did not change'
[ "$(version "$work/first.json")" = 100 ] || fail "the first answer names version $(version "$work/first.json"), not 100"
[ "$(version "$work/second.json")" = 200 ] || fail "the second answer names version $(version "$work/second.json"), not 200"
touch "$work/stop"
for pid in $askers; do wait "$pid" || fail 'a client crashed'; done
askers=''
[ ! -e "$work/failures" ] || { cat "$work/failures" >&2; fail 'requests failed during the swap'; }
# Each answer must be what its version answered when it was asked alone: version, generation and
# digest to the letter, the numbers up to what a batch with others may round.
for name in first second; do
  tr -d '\n' <"$work/$name.json"
  echo
done >"$work/expected"
awk '
  function who(line) { sub(/"outputs".*/, "", line); return line }
  function numbers(line, into) { sub(/.*"data":/, "", line); return split(line, into, /[^-+.0-9eE]+/) }
  function same(line, expected,   a, b, n, i) {
    n = numbers(line, a)
    if (n != numbers(expected, b)) return 0
    for (i = 1; i <= n; i++) if ((a[i] - b[i]) ^ 2 > 1e-8 * (1 + b[i] ^ 2)) return 0
    return 1
  }
  NR <= 2 { expected[NR] = $0; next }
  who($0) == who(expected[1]) && same($0, expected[1]) { old++; next }
  who($0) == who(expected[2]) && same($0, expected[2]) { new++; next }
  { print "neither version answers so: " $0 > "/dev/stderr"; wrong++ }
  END {
    printf "%d answers came from version 100 and %d from version 200; none failed.\n", old, new
    exit !(old && new && !wrong)
  }' "$work/expected" "$work"/answers.* || fail 'not every answer was right, or a version gave none'

step '4. Push a broken one: cut in the middle.'
head -c 2000 "$here/checkpoints/step-000200.pt" >"$work/step-000300.pt"
mv "$work/step-000300.pt" "$watched/step-000300.pt"
if "$relightctl" reload simplenet >"$work/refused" 2>&1; then
  fail 'a broken checkpoint was accepted'
fi
cat "$work/refused"
ask --json >"$work/third.json"
[ "$(version "$work/third.json")" = 200 ] || fail 'the broken checkpoint changed what is served'
printf 'Version 200 serves on:\n'
show "$relightctl" status simplenet
rm "$watched/step-000300.pt"

step '5. Take the served model and its optimizer back as a file that training resumes from.'
show "$relightctl" snapshot simplenet resume.pt
[ -s "$work/snapshots/resume.pt" ] || fail 'there is no snapshot'
if /usr/bin/python3 -c 'import torch' 2>/dev/null; then
  show /usr/bin/python3 "$here/train.py" "$work/resumed" --resume "$work/snapshots/resume.pt" --steps 100 --every 100
fi

step '6. What happened.'
show "$relightctl" history simplenet

step '7. Stop.'
kill -TERM "$daemon"
wait "$daemon" || fail "the daemon ended with status $?"
daemon=''
printf '\nThe demo went through.\n'
