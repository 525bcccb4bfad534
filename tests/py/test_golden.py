"""Captures of every version of the format give the figures that they always gave."""

import json
from pathlib import Path
from typing import Any

import pytest

from pymemtrace import _core

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def figures(path: Path) -> dict[str, Any]:
    reader = _core.Reader(str(path))
    result: dict[str, Any] = {
        "info": {key: value for key, value in reader.info().items() if key != "path"},
        "proc": reader.proc(),
        "totals": reader.totals(),
        "threads": reader.threads(),
        "timeline": reader.timeline(),
        "marks": reader.marks(),
        "epochs": reader.epochs(),
        "stats": reader.stats(),
    }
    for view in ("peak", "leaks", "total", "temporary"):
        result[view] = reader.aggregate(view).stacks()
    result["window"] = reader.aggregate("leaks", start_s=1, end_s=2).stacks()
    return result


def as_far_as(found: Any, expected: Any) -> Any:
    """Without the keys that were not known then: more may be known by now."""
    if isinstance(expected, dict):
        return {key: as_far_as(found[key], value) for key, value in expected.items()}
    if isinstance(expected, list) and len(found) == len(expected):
        return [as_far_as(*pair) for pair in zip(found, expected, strict=True)]
    return found


@pytest.mark.parametrize("capture", sorted(GOLDEN.glob("*.pmt")), ids=lambda path: path.stem)
def test_golden_capture(capture: Path) -> None:
    expected = json.loads(capture.with_suffix(".json").read_text(encoding="utf-8"))
    found = json.loads(json.dumps(figures(capture)))
    for part, value in expected.items():
        assert as_far_as(found[part], value) == value


def test_there_is_a_golden_capture() -> None:
    assert (GOLDEN / "v1.0.pmt").is_file()
