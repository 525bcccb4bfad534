#!/usr/bin/env bash
# Makes the virtual environment with the peers, and builds the package into it.
# usage: bench/setup.sh [VENV [PYTHON]]     default: .venv-bench, of .venv's interpreter
source "$(dirname "$0")/../tools/common.sh"

venv=${1:-.venv-bench}
PYTHON=${2:-$(sed -n 2p .venv/.ready)}
export PYTHON
# tools/setup.sh knows the changes of requirements/ only.
[ bench/requirements.txt -nt "$venv/.ready" ] && rm -f "$venv/.ready"
tools/setup.sh "$venv" bench/requirements.txt
tools/build.sh "$venv"
