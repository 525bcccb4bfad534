#!/usr/bin/env bash
# Builds and tests on every supported interpreter that tools/pythons.py finds or gets.
# usage: tools/test_all.sh [argument of pytest...]
source "$(dirname "$0")/common.sh"

status=0
found=$(.venv/bin/python tools/pythons.py) || status=1
results=()
while read -r version python; do
    venv=.venv-$version
    say "--- Python $version: $python"
    if PYTHON=$python tools/setup.sh "$venv" requirements/test.txt && tools/build.sh "$venv" &&
        tools/test_py.sh "$venv" "$@"; then
        results+=("$version passed")
    else
        results+=("$version FAILED")
        status=1
    fi
done <<< "$found"
printf '%s\n' "${results[@]}"
exit $status
