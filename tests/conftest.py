"""What holds for every test: it runs against the installed package, in a folder of its own."""

import signal
from pathlib import Path

import pytest

import pymemtrace

CHECKOUT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    # A shell that starts us in the background ignores SIGINT for us and so for every program that
    # we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if Path(pymemtrace.__file__).resolve().is_relative_to(CHECKOUT / "pymemtrace"):
        raise pytest.UsageError(
            "the tests need the installed package, not the sources: use `make test-py`"
            " or .venv/bin/pytest, not `python -m pytest`"
        )


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In the checkout, `python -m pymemtrace` of a subprocess would find the sources.
    monkeypatch.chdir(tmp_path)
