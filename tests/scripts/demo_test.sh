#!/bin/sh
# The demo with programs that only act: it must go through where the answers are right, and fail,
# saying so, where a version gave none or a wrong one.
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/server" "$work/client"

cat >"$work/server/relightd" <<'EOF'
#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in --port-file) ports=$2 ;; esac
  shift
done
echo grpc=1 >"$ports"
echo 'listening' >&2
echo 'simplenet serves version 100' >&2
trap 'exit 0' TERM
while :; do sleep 0.1; done
EOF

# Answers as ACT says. The demo asks twice alone, then its clients ask, and the first who wants no
# JSON after the reload is the demo again.
cat >"$work/client/relightctl" <<'EOF'
#!/bin/sh
state=$(dirname "$RELIGHT_ADMIN_SOCKET")
answer() {
  case "$1" in 100) row='-1.5, 2.25' ;; *) row='-3.5, 4.75' ;; esac
  printf '{\n  "model": "simplenet",\n  "version": "%s",\n  "weights_digest": "of%s",\n' "$1" "$1"
  printf '  "outputs": [{"name": "output", "shape": [1, 2], "data": [[%s]]}]\n}\n' "${2:-$row}"
}
case "$*" in
  *infer*)
    echo >>"$state/calls"
    version=100
    [ ! -e "$state/swapped" ] || version=200
    during=''
    case "$*" in *--json*) ;; *) [ ! -e "$state/swapped" ] || touch "$state/over" ;; esac
    [ "$(grep -c '' "$state/calls")" -le 2 ] || [ -e "$state/over" ] || during=1
    case "$during$ACT" in
      1only_new) answer 200 ;;
      1only_old) answer 100 ;;
      1wrong_number) answer "$version" '-1.5, 2.5' ;;
      1wrong_digest) answer "$version" | sed 's,"of,"not of,' ;;
      1rounded) if [ "$version" = 100 ]; then answer 100 '-1.5000001, 2.25'; else answer 200; fi ;;
      1refused) echo 'UNAVAILABLE: the queue is full' >&2; exit 3 ;;
      *) answer "$version" ;;
    esac
    ;;
  *reload*)
    [ ! -e "$state/models/simplenet/checkpoints/step-000300.pt" ] || exit 1
    touch "$state/swapped"
    ;;
  *snapshot*) cp "$state/models/simplenet/checkpoints/step-000200.pt" "$state/snapshots/resume.pt" ;;
esac
EOF
chmod +x "$work/server/relightd" "$work/client/relightctl"

# act NAME WORDS: the demo with this act must say WORDS on stderr and fail; without WORDS, succeed.
act() {
  status=0
  ACT=$1 "$source/examples/simplenet/demo.sh" "$work" >"$work/out" 2>"$work/err" || status=$?
  if [ -z "$2" ]; then
    [ "$status" -eq 0 ] || { cat "$work/err"; echo "demo_test: $1 failed"; exit 1; }
  elif [ "$status" -eq 0 ] || ! grep -q "$2" "$work/err"; then
    cat "$work/out" "$work/err"
    echo "demo_test: $1 ended with $status and not with \"$2\""
    exit 1
  fi
}

act rounded ''
grep -q '^[1-9][0-9]* answers came from version 100 and [1-9][0-9]* from version 200; none failed' "$work/out"
act only_new 'version 200 answered client 1, not 100'
act only_old 'version 100 answered client 1, not 200'
act wrong_number 'neither version answers so'
act wrong_digest 'neither version answers so'
act refused 'requests failed'
