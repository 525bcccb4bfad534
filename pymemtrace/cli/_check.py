"""One line of `pymemtrace doctor`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = False  # without it nothing can be recorded
