"""Orders to the sampled recording of this process, whoever has started it."""

import signal
from types import FrameType
from typing import Literal

from pymemtrace import _core


def sampling(what: int | Literal["off", "on"]) -> None:
    """One sample per so many bytes from now on (1024 to 2**40); "off": nothing new is sampled;
    "on": again. What was sampled before is looked after all the time. Raises PymemtraceError
    where this process is not being sampled."""
    _core.order_sampling(what)


def toggle_sampling_on(number: int) -> None:
    """Every signal of this number turns sampling off, or on again. To be called in the main thread,
    with a signal for which the program has no use: raises ValueError if it has a handler."""
    if signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN):
        raise ValueError(f"the program has a handler for {signal.Signals(number).name}")
    is_on = True

    def toggle(number: int, frame: FrameType | None) -> None:
        nonlocal is_on
        try:
            _core.order_sampling("off" if is_on else "on")
            is_on = not is_on
        except _core.PymemtraceError:
            pass  # nothing is recorded now

    signal.signal(number, toggle)
