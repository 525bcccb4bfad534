"""What the benchmarks share: where things are, how a program is run and measured, the tables."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

CHECKOUT = Path(__file__).resolve().parent.parent
BENCH = CHECKOUT / "bench"
WORK = CHECKOUT / "build/bench"
# The environment with web servers and with the peers that sample.
PRODUCTION, PRODUCTION_REQUIREMENTS = ".venv-production", "requirements-production.txt"

WORKLOADS = {
    "json": "json_round",
    "etl": "etl",
    "django": "django_app",
    "trees": "trees",
    "deep": "deep",
    "native": "native",
    "threads": "threads",
    "pandas": "pandas_job",
}


@dataclass
class Row:
    """One line of the table of targets. `met` is None where nothing was measured."""

    what: str
    target: str
    measured: str
    met: bool | None


@dataclass
class Run:
    """One run of a program: times in seconds, the peak of the resident set in KiB."""

    wall: float
    user: float
    system: float
    peak_kib: int
    status: int
    output: str

    @property
    def cpu(self) -> float:
        return self.user + self.system


class Failed(Exception):
    """A program of the benchmark did not do what it should; the text is for the user."""


# --- places --------------------------------------------------------------------------------------


def bench_venv(
    name: str = ".venv-bench",
    python: Path | None = None,
    requirements: str = "requirements.txt",
) -> Path:
    """The environment with the peers and the package, made if need be."""
    command = [BENCH / "setup.sh", name, python or "", BENCH / requirements]
    subprocess.run(command, cwd=CHECKOUT, check=True)
    return CHECKOUT / name


def interpreters(wanted: Sequence[str] = ()) -> dict[str, Path]:
    """Version -> an interpreter that has the package: the environments of `make test-all`."""
    found = subprocess.run(
        [sys.executable, CHECKOUT / "tools/pythons.py"], capture_output=True, text=True, check=False
    )
    result = {}
    for line in found.stdout.splitlines():
        version, _, python = line.partition(" ")
        if wanted and version not in wanted:
            continue
        venv = f".venv-{version}"
        environment = dict(os.environ, PYTHON=python)
        setup = [CHECKOUT / "tools/setup.sh", venv, "requirements/test.txt"]
        subprocess.run(setup, env=environment, check=True)
        subprocess.run([CHECKOUT / "tools/build.sh", venv], check=True)
        result[version] = CHECKOUT / venv / "bin/python"
    for version in wanted:
        if version not in result:
            fail(f"there is no CPython {version} here: {found.stderr.strip()}")
    return result


def work_folder(name: str) -> Path:
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- running -------------------------------------------------------------------------------------


def compile_c(*words: str | Path) -> None:
    subprocess.run([os.environ.get("CC", "cc"), *words], check=True)


def launcher() -> Path:
    """launch.c, compiled."""
    source, program = BENCH / "launch.c", work_folder("tools") / "launch"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compile_c("-O2", "-o", program, source)
    return program


def alloccount(python: Path) -> Path:
    """The folder with the extension alloccount, compiled for an interpreter."""
    script = (
        "import sysconfig; print(sysconfig.get_path('include'));"
        "print(sysconfig.get_config_var('EXT_SUFFIX'))"
    )
    answer = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    include, suffix = answer.stdout.split()
    source = BENCH / "alloccount/alloccount.c"
    folder = work_folder(f"tools/alloccount{suffix.removesuffix('.so')}")
    library = folder / f"alloccount{suffix}"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        # Debian's pyconfig.h includes another one by its path below /usr/include.
        flags = ["-O2", "-shared", "-fPIC", f"-I{include}", f"-I{Path(include).parent}"]
        compile_c(*flags, "-o", library, source)
    return folder


def environment(**more: str) -> dict[str, str]:
    """The environment of a measured program: ours without what changes Python, hashes fixed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BENCH_"))}
    return kept | {"PYTHONHASHSEED": "0"} | more


def last_cpu() -> int:
    return max(os.sched_getaffinity(0))


def run(
    command: Sequence[str | Path],
    *,
    cpu: int | None = None,
    fixed_addresses: bool = False,
    timeout: float = 1800,
    check: bool = True,
    **variables: str,
) -> Run:
    """Runs a command on one core and measures it. Standard output and error come together."""
    result = work_folder("tools") / f"run.{os.getpid()}"
    if fixed_addresses:
        variables["LAUNCH_FIXED_ADDRESSES"] = "1"
    place = last_cpu() if cpu is None else cpu
    process = subprocess.run(
        [launcher(), result, str(place), *command],
        env=environment(**variables),
        cwd=WORK,  # not the checkout: -c and -m would import its sources
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if process.returncode != 0:
        raise Failed(f"launch failed: {process.stdout.strip()}")
    wall, user, system, peak_kib, status = result.read_text().split()
    result.unlink()
    measured = Run(
        float(wall), float(user), float(system), int(peak_kib), int(status), process.stdout
    )
    if check and measured.status != 0:
        text = " ".join(str(word) for word in command)
        last = "\n".join(process.stdout.strip().splitlines()[-12:])
        raise Failed(f"status {measured.status} of: {text}\n{last}")
    return measured


def bench_line(output: str) -> dict[str, str]:
    """The line `BENCH check=… cpu=…` of a workload."""
    for line in output.splitlines():
        if line.startswith("BENCH "):
            return dict(word.split("=", 1) for word in line.split()[1:])
    last = output.strip().splitlines()[-8:]
    raise Failed("the workload printed no BENCH line:\n" + "\n".join(last))


def json_line(output: str) -> Any:
    """The last line of the output that is a JSON object: how our child scripts answer."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise Failed("no answer from the child script:\n" + output[-2000:])


# --- arguments and output ------------------------------------------------------------------------


def parser(description: str | None) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        description=(description or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    return result


def words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns of text; the first to the left, the others to the right."""
    lines = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    texts = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        texts.append("  ".join(cells).rstrip())
    texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(texts)


def targets_table(rows: Iterable[Row]) -> str:
    lines = []
    for row in rows:
        met = "not measured" if row.met is None else "met" if row.met else "NOT MET"
        lines.append((row.what, row.target, row.measured, met))
    return table(("what", "target", "measured", ""), lines)


def conditions() -> dict[str, Any]:
    """What a reader of the numbers has to know about the machine."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "pinned_to": last_cpu(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "platform": sysconfig.get_platform(),
    }


def finish(args: argparse.Namespace, text: str, data: dict[str, Any], rows: list[Row]) -> int:
    """Prints the result the way that was asked for."""
    after = conditions()
    if args.json:
        answer = {"conditions": after, **data, "targets": [asdict(row) for row in rows]}
        print(json.dumps(answer))
        return 0
    print(text)
    if rows:
        print()
        print(targets_table(rows))
    load = ", ".join(str(x) for x in after["load"])
    print(f"\n{after['cpu']}, {after['cores']} cores, load {load}")
    return 0


def free_space(folder: Path, needed_bytes: int) -> None:
    if shutil.disk_usage(folder).free < needed_bytes:
        fail(f"{folder} has less than {needed_bytes >> 20} MiB free")
