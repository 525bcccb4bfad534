"""What the variable PYMEMTRACE may say."""

import signal

import pytest

from pymemtrace import _environment
from pymemtrace._environment import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [("4096", 4096), ("512K", 524288), ("512KiB", 524288), ("16M", 1 << 24), ("1.5g", 3 << 29),
     ("2 MB", 2 << 20), ("1T", 1 << 40), ("", -1), ("K", -1), ("-1K", -1), ("1e3", -1),
     ("0x10", -1), ("1.K", 1024), (".5M", -1), ("1.2.3", -1), ("٣", -1), ("9" * 16, -1),
     ("nan", -1), ("1 0", -1)],
)  # fmt: skip
def test_sizes(text: str, value: int) -> None:
    assert _environment.size(text) == value


def test_the_usual_settings() -> None:
    for value in ("1", "on", " YES ", "true"):
        settings, problems = parse(value)
        assert settings is not None
        assert problems == []
        assert (settings.sample_bytes, settings.box_bytes) == (512 << 10, 16 << 20)
        assert (settings.dir, settings.keep, settings.keep_normal) == (".", 8, 1)
        assert settings.native
        assert settings.follow
        assert not settings.verbose


def test_all_keys() -> None:
    settings, problems = parse(
        "sample=64K, box=0,dir=/var/lib/my app,program=a/b,keep=3,keep_normal=0,max_bytes=1G,"
        "interval=0.5s,max_overhead=1.5%,native=0,follow=off,verbose,signal=SIGUSR2"
    )
    assert settings is not None
    assert problems == []
    assert vars(settings) == {
        "sample_bytes": 64 << 10, "box_bytes": 0, "dir": "/var/lib/my app", "program": "a_b",
        "keep": 3, "keep_normal": 0, "max_bytes": 1 << 30, "interval_s": 0.5,
        "max_overhead_ppm": 15_000, "native": False, "follow": False, "verbose": True,
        "signal": signal.SIGUSR2,
    }  # fmt: skip


def test_what_is_wrong_is_said_and_the_rest_holds() -> None:
    settings, problems = parse(
        "sample=0,box=64K,interval=inf,keep=-1,dir=,max_overhead=200,what=1,verbose=1"
    )
    assert settings is not None
    assert vars(settings) == {"verbose": True}
    assert len(problems) == 7
    assert all("usual value" in problem for problem in problems[:6])
    assert problems[6].startswith("unknown key 'what'")


@pytest.mark.parametrize("value", ["x\n", "dir=\x00", "dir=\ud800", "d" * 4097])
def test_nothing_is_made_of_hostile_values(value: str) -> None:
    settings, problems = parse(value)
    assert settings is None
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("words", "skipped"),
    [
        (["python", "-m", "pip", "install", "x"], True),
        (["python", "/usr/bin/pip3.11", "list"], True),
        (["python", "pipeline.py"], False),
        (["python", "pip2000x"], False),
        (["python", "/venv/bin/pymemtrace", "run"], True),
        (["python", "-c", "from multiprocessing.resource_tracker import main;main(3)"], True),
        (["python", "-c", "from multiprocessing.spawn import spawn_main"], False),
        (["python", "/opt/venv/bin/gunicorn", "app:app"], False),
    ],
)
def test_skipped_programs(words: list[str], skipped: bool) -> None:
    assert _environment.is_skipped(words) == skipped
