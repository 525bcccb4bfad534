#!/usr/bin/env bash
# Records a data-processing job and shows where its memory went.
source "$(dirname "$0")/common.sh"

folder=build/demo
records=${DEMO_RECORDS:-250000}
pymemtrace=.venv/bin/pymemtrace
mkdir -p "$folder"

say "1. input: $records orders, and the customers who made them"
.venv/bin/python examples/etl_demo.py generate --records "$records" "$folder/input"

say "2. pymemtrace run: the job, recorded"
"$pymemtrace" run -o "$folder/etl.pmt" -f examples/etl_demo.py process "$folder/input" "$folder/output"

say "3. pymemtrace summary"
"$pymemtrace" summary "$folder/etl.pmt"

say "4. pymemtrace flamegraph"
"$pymemtrace" flamegraph -f -o "$folder/etl.html" "$folder/etl.pmt"

say ""
say "The capture: $checkout/$folder/etl.pmt"
say "The report:  $checkout/$folder/etl.html   (open it in a browser)"
