"""All benchmarks one after another, with short settings, and one table of targets at the end.

Never two at once: they would measure each other. --full takes the settings that the numbers in
release notes are made with.
"""

import json
import subprocess
import sys

from harness import BENCH, Row, conditions, parser, say, targets_table, words

# Name -> arguments when it is to be short, and in full.
BENCHMARKS = {
    "startup": (["--rounds", "10"], ["--rounds", "40"]),
    "pair": (["--rounds", "30"], ["--rounds", "100"]),
    "overhead": (["--rounds", "3", "--scale", "0.34"], ["--rounds", "9"]),
    "memory": (["--rounds", "1"], ["--rounds", "3"]),
    "observer": (["--scale", "0.1"], ["--scale", "0.5", "--peers"]),
    "exactness": (["--pythons", "3.11,3.13,3.15"], []),
    "stacks": ([], ["--millions", "20"]),
    "native": (["--rounds", "2"], []),
    "native_stacks": (["--rounds", "1"], ["--rounds", "5"]),
    "reports": ([], ["--peers"]),
    "where": (["--seconds", "4"], ["--seconds", "20"]),
    "live": (
        ["--seconds", "20", "--appearances", "8"],
        ["--seconds", "120", "--appearances", "40"],
    ),
    "watch": (["--seconds", "20"], ["--seconds", "120"]),
    "attach": (["--rounds", "5"], ["--rounds", "40"]),
    "symbols": ([], ["--rounds", "9"]),
    "sampled_pair": (["--rounds", "60"], ["--rounds", "400", "--pythons", "all"]),
    "sampled": (["--rounds", "3", "--scale", "0.2"], ["--rounds", "15", "--peers"]),
    "sampled_memory": (["--megabytes", "10,100"], ["--rounds", "3"]),
    "instructions": (["--workloads", "json,trees"], []),
    "web": (["--seconds", "60"], ["--seconds", "600"]),
    "estimates": (["--rounds", "200"], ["--rounds", "2000"]),
}


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--full", action="store_true", help="as many rounds as publishing takes")
    p.add_argument("--only", type=words, default=list(BENCHMARKS), help=" ".join(BENCHMARKS))
    args = p.parse_args()
    rows: list[Row] = []
    data = {}
    before = conditions()
    for name, settings in BENCHMARKS.items():
        if name not in args.only:
            continue
        say(f"--- {name}")
        command = [sys.executable, BENCH / f"{name}.py", "--json", *settings[args.full]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            rows.append(Row(name, "a result", f"failed with status {done.returncode}", False))
            continue
        data[name] = answer
        rows += [Row(**row) for row in answer["targets"]]
    if args.json:
        print(json.dumps({"conditions": before, "targets": [vars(r) for r in rows], **data}))
        return 0
    print(targets_table(rows))
    print(f"\n{before['cpu']}, {before['cores']} cores, load at the start {before['load'][0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
