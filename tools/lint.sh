#!/usr/bin/env bash
# Everything that can be judged without running the program. Runs all checks, then fails if one did.
source "$(dirname "$0")/common.sh"
take_lock
use_venv .venv
status=0

check() { # name command...
    local name=$1
    shift
    if "$@" > build/lint.log 2>&1; then
        say "ok      $name"
    else
        say "FAILED  $name"
        cat build/lint.log >&2
        status=1
    fi
}

compiles_without_warning() { # compiler
    local folder=build/werror-$1 key="$checkout"
    if [ "$(cat "$folder/.key" 2> /dev/null)" != "$key" ]; then
        rm -rf "$folder"
        CC=$1 meson setup "$folder" -Dtests=true -Dwerror=true || return 1
        printf '%s' "$key" > "$folder/.key"
    fi
    meson compile -C "$folder" -j "${JOBS:-2}"
}

formatted() { # names the files, not each place: `make format` mends them
    local file all=0
    for file in "$@"; do
        clang-format "$file" | cmp -s - "$file" || { echo "not formatted: $file"; all=1; }
    done
    return $all
}

public_headers_stand_alone() {
    local header
    for header in include/pymemtrace/*.h; do
        "${CC:-cc}" -std=c99 -pedantic -Wall -Wextra -Werror -Iinclude -fsyntax-only -x c "$header" ||
            return 1
        command -v "${CXX:-c++}" > /dev/null || continue
        "${CXX:-c++}" -pedantic -Wall -Wextra -Werror -Iinclude -fsyntax-only -x c++ "$header" || return 1
    done
}

mapfile -d '' c_files < <(find src include pymemtrace/_ext tests -name '*.[ch]' -print0)

check "layers" python tools/check_layers.py
check "links in the documentation" python tools/check_links.py
check "ruff" ruff check .
check "ruff format" ruff format --check .
check "mypy" mypy
check "clang-format" formatted "${c_files[@]}"
check "public headers compile alone" public_headers_stand_alone
for compiler in gcc clang; do
    command -v $compiler > /dev/null && check "$compiler -Werror" compiles_without_warning $compiler
done
exit $status
