# Sourced by the other scripts: stands in the checkout, whose path may contain spaces.
# shellcheck shell=bash
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
checkout=$PWD
mkdir -p build

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# Two makes in one checkout would write the same build folders: the second waits for the first.
take_lock() {
    exec 9> build/.lock
    flock -n 9 || { say "waiting for another make in this checkout"; flock 9; }
}

# Tools that start other tools by name (meson-python starts meson and ninja) find ours first.
use_venv() {
    PATH=$checkout/$1/bin:$PATH
    export PATH
}
