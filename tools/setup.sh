#!/usr/bin/env bash
# Makes a virtual environment that can build and test this checkout; does nothing when it is there.
# usage: tools/setup.sh [VENV [REQUIREMENTS]]
#
# Without VENV: .venv with everything in requirements/dev.txt, by Python's own venv module.
# With VENV, an additional interpreter given by $PYTHON: made by .venv's virtualenv, because the
# ensurepip of an interpreter that is only unpacked does not work.
source "$(dirname "$0")/common.sh"
take_lock

venv=${1:-.venv}
requirements=${2:-requirements/dev.txt}
ready=$venv/.ready

key_of() { # interpreter
    printf '%s\n' "$checkout" "$1" "$("$1" -VV)"
    cat requirements/*.txt
}

# An environment stays with its interpreter until PYTHON names another one.
if [ -z "${PYTHON:-}" ] && [ -e "$ready" ]; then
    python=$(sed -n 2p "$ready")
    [ -x "$python" ] || python=$(tools/find_python.sh)
else
    python=$(tools/find_python.sh)
fi

# --- Debian packages ---------------------------------------------------------------------------

missing=()
cc=${CC:-cc}
read -r version include < <("$python" -c 'import sys, sysconfig
print("%d.%d" % sys.version_info[:2], sysconfig.get_path("include"))')
system_python=no
case $python in /usr/bin/*) system_python=yes ;; esac

command -v "$cc" > /dev/null || missing+=(gcc libc6-dev)
command -v pkg-config > /dev/null || missing+=(pkg-config)
pkg-config --exists libzstd 2> /dev/null || missing+=(libzstd-dev)
pkg-config --exists cmocka 2> /dev/null || missing+=(libcmocka-dev)
[ -e /usr/include/xxhash.h ] || echo '#include <xxhash.h>' | "$cc" -E -x c - > /dev/null 2>&1 ||
    missing+=(libxxhash-dev)
# libbacktrace: gcc has it, whatever compiler is used
if ! command -v gcc > /dev/null; then
    missing+=(gcc)
elif [ ! -e "$(gcc -print-file-name=libbacktrace.a)" ]; then
    missing+=("libgcc-$(gcc -dumpversion | cut -d. -f1)-dev")
fi
[ -e /usr/include/libiberty/demangle.h ] || missing+=(libiberty-dev)
# the tests of `pymemtrace live` are left out without it
[ -z "${CI:-}" ] || command -v tmux > /dev/null || missing+=(tmux)
if [ $system_python = yes ]; then
    [ -e "$include/Python.h" ] || missing+=("python$version-dev")
    [ "$venv" != .venv ] || [ -e "$ready" ] || "$python" -c "import ensurepip, venv" 2> /dev/null ||
        missing+=("python$version-venv")
elif [ ! -e "$include/Python.h" ]; then
    fail "$python has no headers: $include/Python.h is missing"
fi

if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo -n)
        sudo -n true 2> /dev/null || as_root=(none)
    fi
    if [ "${as_root[*]}" = none ] || ! command -v apt-get > /dev/null; then
        fail "these packages are missing; run: sudo apt-get install ${missing[*]}"
    fi
    say "installing Debian packages: ${missing[*]}"
    apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }
    {
        apt install -y --no-install-recommends "${missing[@]}" ||
            { apt update && apt install -y --no-install-recommends "${missing[@]}"; }
    } > build/apt.log 2>&1 ||
        { cat build/apt.log >&2; fail "apt-get could not install: ${missing[*]}"; }
fi

# --- the environment ---------------------------------------------------------------------------

if [ -e "$ready" ] && [ -x "$venv/bin/python" ] && [ "$(cat "$ready")" = "$(key_of "$python")" ]; then
    exit 0
fi

say "setting up $venv for $python ($version)"
rm -rf "$venv" "build/ext$venv"
if [ "$venv" = .venv ]; then
    "$python" -m venv "$venv"
else
    .venv/bin/python -m virtualenv -q --no-periodic-update --python "$python" "$venv"
fi
"$venv/bin/python" -m pip --disable-pip-version-check install -q -r "$requirements"
key_of "$python" > "$ready"
