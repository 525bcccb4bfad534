#!/usr/bin/env bash
# Makes the virtual environment with the peers, and builds the package into it.
# usage: bench/setup.sh [VENV [PYTHON [REQUIREMENTS]]]
# default: .venv-bench, of .venv's interpreter, with bench/requirements.txt
source "$(dirname "$0")/../tools/common.sh"

venv=${1:-.venv-bench}
PYTHON=${2:-$(sed -n 2p .venv/.ready)}
requirements=${3:-bench/requirements.txt}
export PYTHON
# tools/setup.sh knows the changes of requirements/ only.
[ -n "$(find bench/requirements*.txt -newer "$venv/.ready" 2> /dev/null)" ] && rm -f "$venv/.ready"
tools/setup.sh "$venv" "$requirements"
tools/build.sh "$venv"
