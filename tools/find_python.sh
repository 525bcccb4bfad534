#!/usr/bin/env bash
# Prints the interpreter to use: $PYTHON if it is set, else the first Python >= 3.11 on PATH.
set -euo pipefail

# The real executable, not pyenv's shim nor a virtual environment's link to it.
probe='import sys
assert sys.version_info >= (3, 11) and sys.implementation.name == "cpython"
print(getattr(sys, "_base_executable", None) or sys.executable)'

names=(python3 python3.11 python3.12 python3.13 python3.14 python3.15)
[ -n "${PYTHON:-}" ] && names=("$PYTHON")
for name in "${names[@]}"; do
    while IFS= read -r candidate; do
        "$candidate" -c "$probe" 2> /dev/null && exit 0
    done < <(type -ap "$name")
done

if [ -n "${PYTHON:-}" ]; then
    echo "error: PYTHON=$PYTHON is not a CPython 3.11 or newer that can be run" >&2
else
    echo "error: no CPython 3.11 or newer on PATH; install one (Debian: apt-get install python3)" \
        "or name it: make PYTHON=/path/to/python3" >&2
fi
exit 1
