"""Estimates of sampled recordings against the truth: bias, and what the 95 % intervals cover.

Each workload runs once recorded in full, which is the truth, and then again and again with samples,
in one process; each recording draws other samples. Six lines of code do the same to blocks of other
sizes, so there are six independent estimates per recording, and that of all lines together.

Coverage is judged with the error that so many recordings have: it must not be surely (at 2.6
standard deviations) outside of 93 to 97 %.
"""

import math
import sys
from typing import Any

from harness import (
    CHECKOUT,
    Failed,
    Row,
    fail,
    finish,
    json_line,
    parser,
    run,
    say,
    table,
    words,
    work_folder,
)

WORKLOADS = ("small", "mixed", "growing", "arrays", "churn")
BIAS = 0.01
COVERS = (0.93, 0.97)
SIGMAS = 2.6  # both sides: 1 in 100


def judge(answer: dict[str, Any], figure: str, at: slice) -> tuple[float, float, float, float]:
    """Relative bias and its error, coverage and its error; over all lines of the slice."""
    truth = answer["truth"][figure][at]
    rounds = [values[at] for values in answer["rounds"][figure]]
    errors = [
        sum(value[0] for value in values) / sum(truth) - 1 for values in rounds
    ]  # of their sum: some lines are small
    covered = [
        low <= t <= high
        for values in rounds
        for t, (_, low, high, _) in zip(truth, values, strict=True)
    ]
    bias = math.fsum(errors) / len(errors)
    spread = math.sqrt(math.fsum((e - bias) ** 2 for e in errors) / (len(errors) - 1))
    rate = sum(covered) / len(covered)
    return (
        bias,
        spread / math.sqrt(len(errors)),
        rate,
        math.sqrt(0.95 * 0.05 / len(covered)),
    )


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=400, help="sampled recordings of each workload")
    p.add_argument("--workloads", type=words, default=list(WORKLOADS), help=" ".join(WORKLOADS))
    p.add_argument("--native", action="store_true", help="with the C library's allocator")
    p.add_argument("--cpu", type=int, help="the core (default: the last)")
    args = p.parse_args()
    python = sys.executable
    capture = work_folder("estimates") / "estimates.pmt"
    lines, rows = [], []
    data: dict[str, Any] = {}
    try:
        for name in args.workloads:
            words_ = [
                python,
                CHECKOUT / "tests/targets/estimates.py",
                name,
                str(args.rounds),
                capture,
            ]
            answer = json_line(
                run([*words_, *(["native"] if args.native else [])], cpu=args.cpu).output
            )
            for figure, truth in answer["truth"].items():
                for what, at in (("each line", slice(-1)), ("all lines", slice(-1, None))):
                    bias, error, rate, rate_error = judge(answer, figure, at)
                    samples = [v[3] for each in answer["rounds"][figure] for v in each[at]]
                    mean = sum(samples) / len(samples)
                    lines.append((f"{name}: {figure}, {what}", f"{mean:,.0f}", f"{bias * 100:+.2f}",
                                  f"{error * 100:.2f}", f"{rate * 100:.1f}",
                                  f"{rate_error * 100:.1f}"))  # fmt: skip
                    data[f"{name}, {figure}, {what}"] = {
                        "truth": truth[at], "samples": mean, "bias": bias, "bias_error": error,
                        "coverage": rate, "coverage_error": rate_error,
                    }  # fmt: skip
            say(f"{name}: {args.rounds} recordings")
    except Failed as error:
        fail(str(error))
    finally:
        capture.unlink(missing_ok=True)
    worst = max(data.values(), key=lambda each: abs(each["bias"]))
    unbiased = all(
        abs(each["bias"]) - SIGMAS * each["bias_error"] <= BIAS for each in data.values()
    )
    rows.append(Row("bias of estimates, the largest", "<= 1 %", f"{worst['bias'] * 100:+.2f} %",
                    unbiased))  # fmt: skip
    rates = [each["coverage"] for each in data.values()]
    met = all(
        COVERS[0] - SIGMAS * each["coverage_error"] <= each["coverage"]
        and each["coverage"] <= COVERS[1] + SIGMAS * each["coverage_error"]
        for each in data.values()
    )
    rows.append(Row("the 95 % intervals cover", "93 to 97 %",
                    f"{min(rates) * 100:.1f} to {max(rates) * 100:.1f} %", met))  # fmt: skip
    heads = ("workload", "samples", "bias %", "+-", "covered %", "+-")
    return finish(args, table(heads, lines), {"rounds": args.rounds, "estimates": data}, rows)


if __name__ == "__main__":
    sys.exit(main())
