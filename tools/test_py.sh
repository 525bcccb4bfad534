#!/usr/bin/env bash
# Runs pytest against the installed package.
# usage: tools/test_py.sh [VENV [argument of pytest...]]
source "$(dirname "$0")/common.sh"

venv=${1:-.venv}
[ $# -gt 0 ] && shift
# The script, not `python -m pytest`: that would put the checkout, with its sources, on sys.path.
exec "$venv/bin/pytest" "$@"
