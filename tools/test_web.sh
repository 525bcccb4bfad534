#!/usr/bin/env bash
# Runs the viewer's tests. Building and using PyMemTrace needs no node, so its absence is no failure.
source "$(dirname "$0")/common.sh"

[ -e web/package-lock.json ] || { say "web: no package-lock.json, nothing to test"; exit 0; }
command -v npm > /dev/null || { say "web: not tested, there is no npm on this machine"; exit 0; }
take_lock
cd web
if ! cmp -s package-lock.json node_modules/.ready; then
    npm ci --no-audit --no-fund
    cp package-lock.json node_modules/.ready
fi
exec npm test
