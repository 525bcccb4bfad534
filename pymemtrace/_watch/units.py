"""Quantities as people write them in a rule file. All raise ValueError with what is wrong."""

import math
import re

SIZES = {
    "B": 1, "K": 1 << 10, "KIB": 1 << 10, "KB": 1 << 10, "M": 1 << 20, "MIB": 1 << 20,
    "MB": 1 << 20, "G": 1 << 30, "GIB": 1 << 30, "GB": 1 << 30, "T": 1 << 40, "TIB": 1 << 40,
    "TB": 1 << 40,
}  # fmt: skip
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
MAX_NUMBER = 1e18

NUMBER = r"(\d{1,18}(?:\.\d{1,9})?)"


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} is no {what}")
    # an integer of TOML may be too large for a float
    if not (0 <= value <= MAX_NUMBER and math.isfinite(value)):
        raise ValueError(f"{shown(value)} is no {what} between 0 and 1e18")
    return float(value)


def shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number so large"
    return text if len(text) <= 60 else text[:57] + "..."


def parse_duration(value: object) -> float:
    """Seconds: "90s", "5m", "1h30m", or a number of seconds."""
    what = 'duration: write "30s", "5m", "1h30m"'
    if not isinstance(value, str):
        return _number(value, what)
    if len(value) > 40 or not re.fullmatch(
        rf"(?:{NUMBER}\s*(?:ms|min|s|m|h|d)\s*)+", value.strip()
    ):
        raise ValueError(f"{shown(value)} is no {what}")
    parts = re.findall(rf"{NUMBER}\s*(ms|min|s|m|h|d)", value)
    return _number(sum(float(number) * SECONDS[unit] for number, unit in parts), what)


def parse_size(value: object) -> float:
    """Bytes: "512MiB", "1.5G", in powers of 1024, or a number of bytes."""
    what = 'size: write "512MiB", "1.5G"'
    if not isinstance(value, str):
        return _number(value, what)
    match = re.fullmatch(rf"{NUMBER}\s*([A-Za-z]*)", value.strip(), re.ASCII)
    if match is None or (match[2] and match[2].upper() not in SIZES):
        raise ValueError(f"{shown(value)} is no {what}")
    return _number(float(match[1]) * SIZES[match[2].upper() or "B"], what)


def parse_fraction(value: object) -> float:
    """0 to 1: "85%" or 0.85."""
    what = 'fraction: write "85%" or 0.85'
    if isinstance(value, str):
        match = re.fullmatch(rf"{NUMBER}\s*%", value.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"{shown(value)} is no {what}")
        number = float(match[1]) / 100
    else:
        number = _number(value, what)
    if number > 1:
        raise ValueError(f"{shown(value)} is more than the whole: {what.partition(': ')[2]}")
    return number


def parse_percent(value: object) -> float:
    """Per cent of time, as PSI has it: "10%" or 10."""
    if isinstance(value, str):
        return parse_fraction(value) * 100
    number = _number(value, 'share of time: write "10%"')
    if number > 100:
        raise ValueError(f"{shown(value)} is more than 100 %")
    return number


def parse_count(value: object) -> float:
    return _number(value, "number")


def parse_rate(value: object, of_bytes: bool) -> float:
    """Per second: "10MiB/min", "1000/h"."""
    what = 'rate: write "10MiB/min"' if of_bytes else 'rate: write "1000/min"'
    if not isinstance(value, str) or value.count("/") != 1:
        raise ValueError(f"{shown(value)} is no {what}")
    amount, _, unit = value.partition("/")
    if unit.strip() not in SECONDS:
        raise ValueError(f"{shown(value)} is no {what}")
    try:
        number = parse_size(amount) if of_bytes else _number(float(amount.strip()), what)
    except ValueError:
        raise ValueError(f"{shown(value)} is no {what}") from None
    return number / SECONDS[unit.strip()]
