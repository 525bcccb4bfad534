#!/usr/bin/env bash
# Builds and runs the C unit tests, which link the rooms without Python.
# usage: tools/test_c.sh [plain|asan|tsan] [argument of `meson test`...]
source "$(dirname "$0")/common.sh"
take_lock
use_venv .venv

lane=${1:-plain}
[ $# -gt 0 ] && shift
options=(-Dextension=false -Dtests=true)
patience=()
runner=()
case $lane in
    plain) ;;
    asan)
        patience=(--timeout-multiplier 4)
        options+=(-Db_sanitize=address,undefined -Db_lundef=false -Dwerror=true)
        export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1}
        export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
        ;;
    tsan)
        patience=(--timeout-multiplier 4)
        options+=(-Db_sanitize=thread -Db_lundef=false -Dwerror=true)
        export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}
        # GCC 12's TSan cannot place its shadow where a kernel randomises 32 bits of addresses.
        setarch -R true 2> /dev/null && runner=(setarch -R)
        ;;
    *) fail "unknown lane '$lane': plain, asan or tsan" ;;
esac

folder=build/c-$lane
key="$checkout ${CC:-cc} ${options[*]}"
if [ "$(cat "$folder/.key" 2> /dev/null)" != "$key" ]; then
    rm -rf "$folder"
    meson setup "$folder" "${options[@]}" > "build/c-$lane.log" ||
        { cat "build/c-$lane.log" >&2; fail "meson setup failed"; }
    printf '%s' "$key" > "$folder/.key"
fi
meson compile -C "$folder" -j "${JOBS:-2}" > "build/c-$lane.log" ||
    { cat "build/c-$lane.log" >&2; fail "the C unit tests do not compile"; }
grep -A 8 'warning:' "build/c-$lane.log" >&2 || true
# meson calls it a success when it ran nothing.
meson test -C "$folder" --no-rebuild --list "$@" > "build/c-$lane.log" 2>&1 ||
    { cat "build/c-$lane.log" >&2; fail "no test was run"; }
"${runner[@]}" meson test -C "$folder" --no-rebuild --print-errorlogs "${patience[@]}" -j "${JOBS:-2}" "$@"
