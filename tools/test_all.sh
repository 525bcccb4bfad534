#!/usr/bin/env bash
# Builds and tests on every supported interpreter that tools/pythons.py finds or gets.
# usage: tools/test_all.sh [argument of pytest...]
# MISSING_OK: an interpreter that is not to be had is named and does not fail the run.
# PIECE: not the interpreter of .venv, which `make test` is for, and not the tests that do not depend
# on the interpreter (marked any_version).
# LANES: so many interpreters at once (default 1); most tests wait for programs.
source "$(dirname "$0")/common.sh"

status=0
found=$(.venv/bin/python tools/pythons.py) || [ -n "${MISSING_OK:-}" ] || status=1
[ -n "$found" ] || fail "no interpreter was found"
chosen=()
[ -z "${PIECE:-}" ] || chosen=(-m "not any_version")
usual=$(.venv/bin/python -c 'import sys; print(sys._base_executable)')

versions=()
declare -A result=()
while read -r version python <&3; do
    [ -n "${PIECE:-}" ] && [ "$(readlink -f "$python")" = "$(readlink -f "$usual")" ] && continue
    say "--- Python $version: $python"
    venv=.venv-$version
    versions+=("$version")
    if PYTHON=$python tools/setup.sh "$venv" requirements/test.txt && tools/build.sh "$venv"; then
        result[$version]=built
    else
        result[$version]="not built"
        status=1
    fi
done 3<<< "$found"

# The output of a lane comes when it has ended: that of several would be a muddle.
declare -A lane=()
finish_one() {
    local pid code=0
    wait -n -p pid "${!lane[@]}" || code=$?
    local version=${lane[$pid]}
    unset "lane[$pid]"
    say "--- Python $version"
    cat "build/test.$version.log"
    if [ $code = 0 ]; then
        result[$version]=passed
    else
        result[$version]=FAILED
        status=1
    fi
}
for version in "${versions[@]}"; do
    [ "${result[$version]}" = built ] || continue
    [ ${#lane[@]} -lt "${LANES:-1}" ] || finish_one
    tools/test_py.sh ".venv-$version" "${chosen[@]}" "$@" > "build/test.$version.log" 2>&1 &
    lane[$!]=$version
done
while [ ${#lane[@]} -gt 0 ]; do
    finish_one
done
for version in "${versions[@]}"; do
    printf '%s %s\n' "$version" "${result[$version]}"
done
exit $status
