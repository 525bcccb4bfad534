#!/usr/bin/env bash
# Builds and tests on every supported interpreter that tools/pythons.py finds or gets.
# usage: tools/test_all.sh [argument of pytest...]
# With MISSING_OK set, an interpreter that is not to be had is named and does not fail the run.
source "$(dirname "$0")/common.sh"

status=0
found=$(.venv/bin/python tools/pythons.py) || [ -n "${MISSING_OK:-}" ] || status=1
[ -n "$found" ] || fail "no interpreter was found"
results=()
while read -r version python <&3; do
    venv=.venv-$version
    say "--- Python $version: $python"
    if PYTHON=$python tools/setup.sh "$venv" requirements/test.txt && tools/build.sh "$venv" &&
        tools/test_py.sh "$venv" "$@"; then
        results+=("$version passed")
    else
        results+=("$version FAILED")
        status=1
    fi
done 3<<< "$found"
printf '%s\n' "${results[@]}"
exit $status
