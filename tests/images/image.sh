#!/usr/bin/env bash
# Builds both images of the Dockerfile and runs deploy/compose.yaml's services with podman: `make image`.
#
# Needs root, PYTHON (with the packages of requirements.lock), and from Debian: buildah, podman, runc, mmdebstrap,
# postgresql, redis-server and iproute2. Works in name spaces of its own: mounts and processes end with them, and the
# services run in a network that has nothing but a loopback interface.
# Nothing is left behind, but with KEEP=directory the store of images: the next run with it builds what has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() { printf '%s\n' "$1" >&2; exit 1; }

check_needs() {
    local each missing=""
    [ "$(id -u)" -eq 0 ] || fail "make image needs root, to make a base image and to run containers."
    export PATH="$PATH:/usr/sbin:/sbin"
    for each in buildah podman runc mmdebstrap redis-server ip unshare; do
        command -v "$each" >/dev/null || missing+=" $each"
    done
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=" postgresql"
    [ -z "$missing" ] || fail "Needed, and not installed:$missing
Debian has them: apt-get install buildah podman runc mmdebstrap postgresql redis-server iproute2 util-linux"
    "${apart[@]}" --net true || fail "This machine lets nobody make name spaces (unshare, above): containers cannot run here."
}

# With mount and process name spaces that end, with all that is in them, when the command does.
apart=(unshare --mount --pid --fork --kill-child --mount-proc)

# What is done there. The store is in memory where there is enough of it: the images are 1.5 GB of small files.
build_and_run() {
    if [ -z "${KEEP:-}" ] && awk '/^MemAvailable:/ { exit $2 < 8000000 }' /proc/meminfo; then
        mount -t tmpfs -o mode=711,size=5g tmpfs "$WORK"
    fi
    mkdir -p /var/lib/containers # Debian makes it with the first use
    mount -t tmpfs tmpfs /var/lib/containers # where buildah would leave a cache
    mkdir -m 711 "$WORK/installations"
    tests/images/build.sh
    printf '\n--- Run with podman (after %d s)\n' "$SECONDS"
    mount -t tmpfs tmpfs /run # where podman and PostgreSQL would leave something
    unshare --net bash -c 'ip link set lo up && exec "$@"' bash "$PYTHON" -m pytest -n 0 tests/images "$@"
    printf 'Images built and run in %d s.\n' "$SECONDS"
}

clean_up() {
    local tries
    if [ -n "$child" ]; then kill -KILL "$child" 2>/dev/null || true; fi # what it has started ends with it
    for tries in {1..50}; do
        if remove_all 2>/dev/null; then return; fi
        sleep 0.2
    done
    printf 'Left behind: %s, and control groups named %s\n' "$WORK" "$CGROUP" >&2
}

remove_all() {
    find /sys/fs/cgroup -depth -type d -path "*/$CGROUP*" -exec rmdir {} + &&
        if [ -n "${KEEP:-}" ]; then rm -rf "$WORK/installations"; else rm -rf "$WORK"; fi
}

child=""
CGROUP="registrar-image-$$"
export PYTHON="${PYTHON:-python3}"
check_needs
if [ -n "${KEEP:-}" ]; then WORK=$(mkdir -p "$KEEP" && realpath "$KEEP"); else WORK=$(mktemp -d); fi
rm -rf "$WORK/installations"
chmod 711 "$WORK" # PostgreSQL has its directory in it
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export CGROUP WORK

export -f build_and_run
"${apart[@]}" bash -c 'set -euo pipefail; build_and_run "$@"' bash "$@" &
child=$! # in the background, so that a signal ends this script at once
wait "$child"
child=""
