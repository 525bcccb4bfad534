"""What the two apps of web.py share: recording is switched on and off in the server's own process.

Only the benchmark does that, from the loopback interface; no app of yours should have it.
"""

import os

import pymemtrace

LOCAL = "127.0.0.1"
_recording: pymemtrace.record | None = None


def switch(on: str) -> dict[str, int]:
    """on: "0", or the mean distance of samples in bytes, with "n" behind it: without native."""
    global _recording
    if _recording is not None:
        _recording.stop()
        _recording = None
    answer = {"pid": os.getpid()}
    if on != "0":
        _recording = pymemtrace.record(
            os.environ["BENCH_CAPTURE"],
            force=True,
            native=not on.endswith("n"),
            sample_bytes=int(on.removesuffix("n")),
        )
        _recording.__enter__()
    return answer


def status() -> dict[str, int]:
    return {} if _recording is None else _recording.status()
