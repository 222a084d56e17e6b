#!/usr/bin/env bash
# Builds the service and the simulator from the Dockerfile into the store $WORK/store. Called by image.sh.
# The base image is PYTHON_IMAGE. Where it cannot be pulled, one of Debian's packages stands in for it.
set -euo pipefail
shopt -s inherit_errexit

store=(--root "$WORK/store" --runroot "$WORK/run")
stand_in=localhost/registrar-base
default=$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)
version=$(sed -E 's/^.*python:([0-9]+\.[0-9]+).*$/\1/' <<<"$default")

headline() { printf '\n--- %s (after %d s)\n' "$1" "$SECONDS"; }

# The directory of an interpreter of the wanted version that is none of Debian's, such as pyenv's.
find_python() {
    local each prefix
    for each in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/"python$version"; do
        prefix=$("$each" -c 'import sys; print(sys.base_prefix)' 2>/dev/null) || continue
        if [ "$prefix" != /usr ]; then printf '%s' "$prefix"; return; fi
    done
}

# A minimal Debian of this machine's release, from the mirror that apt uses, with a Python to be copied in or its own.
make_debian() { # directory, the other Python's directory or nothing
    local release mirror packages=ca-certificates,netbase,tzdata
    release=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    mirror=$(apt-get indextargets --format '$(CODENAME) $(SITE)' 'Created-By: Packages' |
        awk -v release="$release" '$1 == release { print $2; exit }')
    if [ -n "$2" ]; then # what the modules of its standard library are linked with
        packages+=,libssl3,libffi8,libsqlite3-0,liblzma5,libbz2-1.0,libreadline8,zlib1g,libexpat1,libuuid1,libncursesw6
    else
        packages+=,python3,python3-venv,python-is-python3
    fi
    mmdebstrap --quiet --variant=minbase --include="$packages" "$release" "$1" "$mirror"
}

copy_python() { # its directory, the system's
    local unneeded=(test idlelib tkinter turtledemo site-packages "config-$version*") excluded=()
    for each in "${unneeded[@]}"; do excluded+=(--exclude="lib/python$version/$each"); done
    (cd "$1" && tar -c "${excluded[@]}" "bin/python$version" "lib/python$version" lib/libpython3*) |
        tar -x --no-same-owner -C "$2/usr/local"
    ln -s "python$version" "$2/usr/local/bin/python"
    ln -s "python$version" "$2/usr/local/bin/python3"
    chroot "$2" ldconfig
}

make_base() {
    local python system="$WORK/debian" container
    python=$(find_python)
    headline "A base image of Debian's packages and ${python:-their own Python}"
    make_debian "$system" "$python"
    if [ -n "$python" ]; then copy_python "$python" "$system"; fi
    chroot "$system" python -c 'import bz2, ctypes, lzma, sqlite3, ssl, venv, zlib' ||
        { printf 'The Python of the base image does not run in it.\n' >&2; exit 1; }
    container=$(buildah "${store[@]}" from scratch)
    buildah "${store[@]}" add --quiet "$container" "$system" /
    buildah "${store[@]}" config --cmd python3 \
        --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah "${store[@]}" commit --quiet --rm "$container" "$stand_in"
    rm -rf "$system"
}

base=${PYTHON_IMAGE:-$default}
if buildah "${store[@]}" inspect --type image "$stand_in" >/dev/null 2>&1; then
    base=$stand_in
elif ! timeout 120 buildah "${store[@]}" pull --quiet "$base"; then
    printf '%s cannot be pulled.\n' "$base"
    make_base
    base=$stand_in
fi

for target in service simulator; do
    headline "The target $target of the Dockerfile"
    tag=registrar
    if [ "$target" = simulator ]; then tag=registrar-simulator; fi
    # `--format docker` keeps HEALTHCHECK; the mount gives pip's step the authorities that this machine trusts.
    buildah "${store[@]}" bud --quiet --layers --pull-never --isolation chroot --format docker \
        --volume /etc/ssl/certs:/etc/ssl/certs:ro --build-arg PYTHON_IMAGE="$base" --target "$target" --tag "$tag" .
done
