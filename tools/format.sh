#!/usr/bin/env bash
# Rewrites Python and C sources in the project's style.
# usage: tools/format.sh [FILE...]     default: everything
source "$(dirname "$0")/common.sh"
use_venv .venv

if [ $# -eq 0 ]; then
    mapfile -d '' files < <(find src include pymemtrace tests tools examples bench -path tests/targets -prune -o \
        -name '*.[ch]' -print0 -o -name '*.py' -print0 -o -name '*.pyi' -print0 2> /dev/null)
    set -- "${files[@]}"
fi
for file in "$@"; do
    case $file in
        *.[ch]) clang-format -i "$file" ;;
        *.py | *.pyi) ruff check -q --fix-only "$file" && ruff format -q "$file" ;;
    esac
done
