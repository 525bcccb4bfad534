#!/usr/bin/env bash
# Builds the wheel and installs it into a virtual environment, when a source is newer than the last
# time. An ordinary install, not an editable one: its start-up time is what users get.
# usage: tools/build.sh [VENV]
source "$(dirname "$0")/common.sh"
take_lock

venv=${1:-.venv}
stamp=$venv/.built
sources=(src include pymemtrace meson.build meson.options pyproject.toml)

# Folders count too: a deleted file shows only in the time of its folder.
if [ -e "$stamp" ] && [ -z "$(find "${sources[@]}" -name __pycache__ -prune -o -newer "$stamp" -print -quit)" ]; then
    exit 0
fi

use_venv "$venv"
include=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
case $include in
    # Debian's pyconfig.h includes another one by its path below /usr/include.
    "$checkout"/.pythons/*) export CPATH=${include%/*} ;;
esac

say "building for $venv"
# The time of the start: what is edited during the build is newer than the stamp.
touch "$stamp.new"
log=build/ext$venv.log
"$venv/bin/python" -m pip --disable-pip-version-check install --no-index --no-build-isolation \
    --no-deps --config-settings=build-dir="build/ext$venv" \
    --config-settings=compile-args=-j"${JOBS:-2}" . > "$log" 2>&1 ||
    { cat "$log" >&2; fail "the build failed"; }
mv "$stamp.new" "$stamp"
