"""Estimates of sampled recordings against the truth: `make bench-estimates`, in small.

Every recording draws other samples, so the bounds are such that a right estimate passes them but
for once in a thousand million.
"""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TARGET = Path(__file__).parent.parent / "targets/estimates.py"
ROUNDS = 40
SIGMAS = 6.0
FALSE_ALARMS = 1e-9
# The rate below which there would be something wrong. What is covered of several figures of one
# line is not independent: each figure is judged on its own.
COVERAGE = 0.93


def least_count(trials: int, rate: float) -> int:
    """So many successes or more, but for FALSE_ALARMS."""
    total, count = 0.0, 0
    while True:
        ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
        total += math.exp(ways + count * math.log(rate) + (trials - count) * math.log(1 - rate))
        if total > FALSE_ALARMS:
            return count
        count += 1


def test_the_bound_is_that_of_the_binomial() -> None:
    assert least_count(1, 0.5) == 0
    assert 0.80 < least_count(240, COVERAGE) / 240 < 0.84


@pytest.mark.parametrize("native", [[], ["native"]], ids=["python-only", "native"])
@pytest.mark.parametrize("workload", ["small", "mixed", "growing", "arrays", "churn"])
def test_estimates_are_unbiased_and_their_intervals_hold(
    workload: str, native: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, str(TARGET), workload, str(ROUNDS), str(tmp_path / "x.pmt"), *native]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    for figure, truth in answer["truth"].items():
        rounds = answer["rounds"][figure]
        sums = [values[-1][0] for values in rounds]
        mean = math.fsum(sums) / ROUNDS
        variance = math.fsum((value - mean) ** 2 for value in sums) / (ROUNDS - 1)
        error = math.sqrt(variance / ROUNDS) / truth[-1]
        # its own error is estimated, too: Student's distribution, 39 degrees, instead of the normal
        assert abs(mean / truth[-1] - 1) < 1.4 * SIGMAS * error + 1e-3, figure
        covered = sum(
            low <= true <= high
            for values in rounds
            for true, (_, low, high, _) in zip(truth[:-1], values, strict=False)
        )
        lines = ROUNDS * (len(truth) - 1)
        assert covered >= least_count(lines, COVERAGE), (figure, covered, lines)
        for values in rounds:
            for estimate, low, high, samples in values:
                assert 0 <= low <= estimate <= high
                assert samples > 0
