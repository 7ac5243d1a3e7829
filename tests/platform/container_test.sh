#!/bin/sh
# container_test.sh [SUITE]: builds the CPU image with buildah and tries it with podman as a
# deployment would run it: read-only, without capabilities, the watched folder on a volume. Needs root, buildah, podman, runc and
# mmdebstrap ("./dev test-container" sees to that); no registry and no Docker engine.
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd)
suite=${1:-bookworm}
# RELIGHT_CONTAINER_DIR keeps the layers of the last build, so that the next takes minutes less.
work=${RELIGHT_CONTAINER_DIR:-$(mktemp -d)}
mkdir -p "$work"
name=relight-test-$$

fail() { printf 'container_test: %s\n' "$*" >&2; exit 1; }
say() { printf '==> %s\n' "$*"; }

for tool in buildah podman runc mmdebstrap; do
  command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: install it"
done
export CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf"
cat >"$CONTAINERS_CONF" <<EOF
[containers]
default_ulimits=["nofile=20000:20000","nproc=8192:8192"]
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
EOF
cat >"$CONTAINERS_STORAGE_CONF" <<EOF
[storage]
driver="overlay"
graphroot="$work/storage"
runroot="$work/run"
EOF
finish() {
  status=$?
  [ "$status" -eq 0 ] || podman logs "$name" 2>&1 | tail -n 20 >&2 || true
  podman rm -f "$name" >/dev/null 2>&1 || true
  podman unshare true >/dev/null 2>&1 || true
  umount "$work/storage/overlay" 2>/dev/null || true
  [ -n "${RELIGHT_CONTAINER_DIR:-}" ] || rm -rf "$work" 2>/dev/null || true
  exit "$status"
}
trap finish EXIT

if ! podman image exists "docker.io/library/debian:$suite-slim"; then
  say "a stand-in for debian:$suite-slim"
  "$root/tests/platform/debian_root.sh" "$suite" "$work/base.tar"
  podman import -q -c 'CMD ["bash"]' "$work/base.tar" "docker.io/library/debian:$suite-slim" \
    >/dev/null
fi

say 'building the image'
buildah bud -q --isolation chroot --format docker --layers --target cpu \
  --build-arg "DEBIAN=$suite" -t relight:test "$root" >/dev/null

say 'starting it read-only, without capabilities, the watched folder on a volume'
rm -rf "$work/models"
mkdir -p "$work/models"
cp -R "$root/examples/simplenet/models/simplenet" "$work/models/"
mkdir -p "$work/models/simplenet/checkpoints"
podman run -d --name "$name" --health-interval=disable --read-only \
  --tmpfs /tmp --cap-drop ALL \
  --security-opt no-new-privileges --pids-limit 200 --memory 2g --stop-timeout 40 \
  -v "$work/models:/models:ro" -p 127.0.0.1::8001 relight:test >/dev/null

run_ctl() { podman exec "$name" relightctl "$@"; }
say 'pushing a checkpoint and asking'
cp "$root/examples/simplenet/checkpoints/step-000100.pt" "$work/models/simplenet/checkpoints/"
attempts=0
until run_ctl infer simplenet --input '[[1,1,1,1,1,0,0,0,0,0]]' >"$work/answer" 2>"$work/error"; do
  attempts=$((attempts + 1))
  [ "$attempts" -lt 100 ] || { cat "$work/error" >&2; fail 'it does not answer'; }
  sleep 0.2
done
cat "$work/answer"
say 'a second checkpoint through the volume'
cp "$root/examples/simplenet/checkpoints/step-000200.pt" "$work/models/simplenet/checkpoints/"
run_ctl reload simplenet
run_ctl status simplenet | grep -q 200 || fail 'version 200 is not served'
run_ctl snapshot simplenet resume.pt
podman healthcheck run "$name" || fail 'the health check fails'
[ "$(podman exec "$name" id -u)" = 990 ] || fail 'it runs as root'

say 'SIGTERM drains'
podman stop -t 40 "$name" >/dev/null 2>&1
code=$(podman inspect -f '{{.State.ExitCode}}' "$name")
[ "$code" = 0 ] || fail "it ended with $code"
say "image size: $(podman image inspect -f '{{.Size}}' relight:test) bytes"
say 'the container works'
