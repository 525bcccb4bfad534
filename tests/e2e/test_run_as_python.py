"""`pymemtrace run` against `python`: the same program has the same output, status and signal."""

import os
import py_compile
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TARGETS = Path(__file__).parent.parent / "targets" / "run"
SCRIPTS = sorted(path.name for path in TARGETS.glob("*.py"))

PACKAGE = {
    "pack/__init__.py": "print('pack', __name__)",
    "pack/__main__.py": "import sys\nfrom . import part\n"
    "print(sys.argv, __spec__.name, __package__, sys.path[0])",
    "pack/part.py": "import sys\nprint(__name__, sys.argv, sys.modules['__main__'].__spec__)",
    "pack/fails.py": "import traceback\ntraceback.print_stack()\n1 / 0",
    "pack/says.py": "import sys\nprint(sys.argv[1:], __name__, globals().keys())\nsys.exit(3)",
}


@dataclass(frozen=True)
class Outcome:
    status: int  # negative: the signal
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Case:
    """A program, how it is started, and what is in its directory."""

    name: str
    target: Sequence[str]
    files: dict[str, str] = field(default_factory=dict)
    python: Sequence[str] = ()  # options of the interpreter
    run: Sequence[str] = ()  # options of `run`; `plain` are what they stand for
    plain: Sequence[str] = ()
    stdin: bytes = b""
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] | None = None


def mask(output: bytes) -> bytes:
    return re.sub(rb"0x[0-9a-f]+", b"0x", output)


def execute(command: Sequence[str], cwd: Path, case: Case) -> Outcome:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | case.environment
    done = subprocess.run(
        command, cwd=cwd, input=case.stdin, capture_output=True, env=environment, timeout=60
    )
    return Outcome(done.returncode, mask(done.stdout), mask(done.stderr))


def fill(directory: Path, case: Case) -> None:
    """The same directory, anew: its path is in the output."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(TARGETS, directory)
    for name, text in case.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if case.prepare is not None:
        case.prepare(directory)


def compare(case: Case, tmp_path: Path) -> Outcome:
    directory, capture = tmp_path / "work", tmp_path / "capture.pmt"
    fill(directory, case)
    plain = execute([sys.executable, *case.python, *case.plain, *case.target], directory, case)
    fill(directory, case)
    command = [sys.executable, *case.python, "-m", "pymemtrace", "run", "-o", str(capture)]
    recorded = execute([*command, *case.run, *case.target], directory, case)
    assert recorded == plain
    assert capture.exists()
    return plain


@pytest.mark.parametrize("script", SCRIPTS)
def test_script(script: str, tmp_path: Path) -> None:
    outcome = compare(Case(script, [script, "a", "-o", "--", "-f"]), tmp_path)
    assert outcome.stdout or outcome.stderr or outcome.status or script in SILENT


# These say something by their status alone, which is that nothing is wrong.
SILENT = {"empty.py", "exit_none.py"}


def make_archive(directory: Path) -> None:
    with zipfile.ZipFile(directory / "app.pyz", "w") as archive:
        archive.writestr(
            "__main__.py", "import sys, inside\nprint(sys.argv, sys.path[0], __file__)\ninside.f()"
        )
        archive.writestr("inside.py", "def f():\n    raise ValueError(__file__)")


def make_shebang_archive(directory: Path) -> None:
    make_archive(directory)
    data = (directory / "app.pyz").read_bytes()
    (directory / "app").write_bytes(b"#!/usr/bin/env python3\n" + data)


def make_pyc(directory: Path) -> None:
    source = directory / "main_namespace.py"
    py_compile.compile(str(source), str(directory / "compiled.pyc"), doraise=True)
    shutil.copy(directory / "compiled.pyc", directory / "without_suffix")
    py_compile.compile(str(directory / "unhandled.py"), str(directory / "fails.pyc"), doraise=True)
    (directory / "bad_magic.pyc").write_bytes(b"\0\0\0\0" + source.read_bytes())
    (directory / "short.pyc").write_bytes((directory / "compiled.pyc").read_bytes()[:40])
    (directory / "no_code.pyc").write_bytes((directory / "compiled.pyc").read_bytes()[:16] + b"N")


def make_links(directory: Path) -> None:
    (directory / "elsewhere").mkdir()
    (directory / "elsewhere" / "link.py").symlink_to("../argv_and_path.py")
    (directory / "elsewhere" / "chain.py").symlink_to("link.py")
    (directory / "elsewhere" / "absolute.py").symlink_to(directory / "argv_and_path.py")


CASES = [
    # -c
    Case("c", ["-c", "import sys; print(sys.argv, sys.path[0] == '', globals())", "-c", "--"]),
    Case("c_joined", ["-cimport sys; print(sys.argv)", "-x"]),
    Case("c_fails", ["-c", "def f():\n  1/0\nf()"]),
    Case("c_syntax_error", ["-c", "f(:"]),
    Case("c_indented", ["-c", "  import sys\n\n  if 1:\n    print('x')\n"]),
    Case("c_mixed_indent", ["-c", "\tprint(1)\n    print(2)\n"]),
    Case("c_cookie", ["-c", "# coding: latin-1\nprint(ascii('é'))"]),
    Case("c_undecodable", ["-c", "print('\udce9')"]),
    Case("c_exit", ["-c", "import sys; sys.exit('why')"]),
    Case("c_interrupt", ["-c", "raise KeyboardInterrupt"]),
    Case("c_interrupt_subclass", ["-c", "class C(KeyboardInterrupt): pass\nraise C"]),
    Case("c_empty", ["-c", ""]),
    Case("c_stack", ["-c", "import traceback; traceback.print_stack()"]),
    Case(
        "c_modules",
        ["-c", "import sys; print(sorted(set(sys.modules) - {'pymemtrace', 'pymemtrace._core'}))"],
    ),
    # -m
    Case("m_package", ["-m", "pack", "x", "-m", "--"], PACKAGE),
    Case("m_module", ["-m", "pack.says", "--help"], PACKAGE),
    Case("m_joined", ["-mpack.says", "--help"], PACKAGE),
    Case("m_fails", ["-m", "pack.fails"], PACKAGE),
    Case("m_missing", ["-m", "no_such_module"], PACKAGE),
    Case("m_missing_in_package", ["-m", "pack.nothing"], PACKAGE),
    Case("m_package_without_main", ["-m", "sub"], {"sub/__init__.py": ""}),
    Case(
        "m_namespace_package",
        ["-m", "space.tool"],
        {"space/tool.py": "print(__package__, __spec__)"},
    ),
    Case("m_import_error", ["-m", "bad"], {"bad.py": "import no_such_module"}),
    Case("m_syntax_error", ["-m", "bad"], {"bad.py": "f(:"}),
    Case("m_frames", ["-m", "frames"]),
    Case("m_recursion", ["-m", "recursion_limit"]),
    Case("m_modules", ["-m", "loaded_modules"]),
    Case("m_interrupted", ["-m", "interrupted"]),
    Case("m_interrupt_subclass", ["-m", "interrupt_subclass"]),
    Case("m_unhandled", ["-m", "unhandled"]),
    Case("m_spawn", ["-m", "spawn", "arg"]),
    Case("m_pickling", ["-m", "pickling"]),
    Case("m_stdlib", ["-m", "json.tool", "--indent", "1"], stdin=b'{"a": [1]}'),
    Case("m_main_namespace", ["-m", "main_namespace"]),
    # stdin
    Case(
        "stdin",
        ["-", "a", "-"],
        stdin=b"import sys\nprint(sys.argv, sys.path[0] == '', globals())\n",
    ),
    Case("stdin_fails", ["-"], stdin=b"def f():\n    1/0\nf()\n"),
    Case("stdin_syntax_error", ["-"], stdin=b"print(1)\nf(:\n"),
    Case("stdin_reads_on", ["-"], stdin=b"import sys\nprint(repr(sys.stdin.read()))\n"),
    Case("stdin_empty", ["-"]),
    Case("stdin_cookie", ["-"], stdin=b"# coding: latin-1\nprint(ascii('\xe9'))\n"),
    Case("stdin_interrupt_subclass", ["-"], stdin=b"class C(KeyboardInterrupt): pass\nraise C"),
    Case("stdin_interrupt", ["-"], stdin=b"raise KeyboardInterrupt"),
    Case("script_reads_stdin", ["reads_stdin.py"], stdin=b"line 1\nline 2"),
    # directories, archives, compiled files
    Case(
        "directory",
        ["app", "x"],
        {
            "app/__main__.py": "import sys, other\n"
            "print(sys.argv, __file__, sys.path[0], __spec__)",
            "app/other.py": "",
        },
    ),
    Case(
        "directory_slash",
        ["./app/"],
        {"app/__main__.py": "import sys\nprint(sys.argv, __file__, sys.path[0], globals())"},
    ),
    Case("directory_without_main", ["app"], {"app/other.py": ""}),
    Case("directory_fails", ["app"], {"app/__main__.py": "1/0"}),
    Case(
        "current_directory",
        ["."],
        {"__main__.py": "import sys\nprint(sys.argv, __file__, sys.path[0])"},
    ),
    Case(
        "directory_P", ["app"], {"app/__main__.py": "import sys\nprint(sys.path[0])"}, python=["-P"]
    ),
    Case("archive", ["app.pyz", "x"], prepare=make_archive),
    Case("archive_shebang", ["./app", "x"], prepare=make_shebang_archive),
    Case("pyc", ["compiled.pyc"], prepare=make_pyc),
    Case("pyc_without_suffix", ["without_suffix"], prepare=make_pyc),
    Case("pyc_fails", ["fails.pyc"], prepare=make_pyc),
    Case("pyc_bad_magic", ["bad_magic.pyc"], prepare=make_pyc),
    Case("pyc_short", ["short.pyc"], prepare=make_pyc),
    Case("pyc_no_code", ["no_code.pyc"], prepare=make_pyc),
    # where the script is
    Case("dot_path", ["./argv_and_path.py"]),
    Case("odd_path", ["elsewhere/.././/argv_and_path.py"], prepare=make_links),
    Case("link", ["elsewhere/link.py"], prepare=make_links),
    Case("link_chain", ["elsewhere/chain.py"], prepare=make_links),
    Case("link_absolute", ["elsewhere/absolute.py"], prepare=make_links),
    Case(
        "name_with_space",
        ["a b é.py"],
        {"a b é.py": "import sys\nprint(ascii(__file__), len(sys.argv))\n1/0"},
    ),
    Case("name_not_utf8", ["\udcff.py"], {"\udcff.py": "import sys\nprint(ascii(__file__))\n1/0"}),
    Case("no_suffix", ["tool"], {"tool": "print(__file__)"}),
    Case("own_name", ["pymemtrace.py"], {"pymemtrace.py": "print('mine')"}, python=["-P"]),
    Case(
        "stdlib_name",
        ["random.py"],
        {"random.py": "import sys\nprint(__name__, 'random' in sys.modules)"},
    ),
    Case("from_other_directory", [str(TARGETS / "argv_and_path.py")]),
    # the interpreter's options, given to it
    Case("X_dev", ["argv_and_path.py"], python=["-X", "dev"]),
    Case("X_joined", ["argv_and_path.py"], python=["-Xdev", "-Xutf8=1", "-bb"]),
    Case("W_error", ["warns.py"], python=["-W", "error"]),
    Case("W_joined", ["warns.py"], python=["-Werror::DeprecationWarning"]),
    Case("optimised", ["no_future.py"], python=["-O"]),
    Case("optimised_twice", ["-c", "def f(): 'doc'\nprint(f.__doc__, __debug__)"], python=["-OO"]),
    Case("options_in_one_word", ["argv_and_path.py"], python=["-uBsWignore"]),
    Case("safe_path", ["argv_and_path.py"], python=["-P"]),
    Case("safe_path_c", ["-c", "import sys; print(sys.path)"], python=["-P"]),
    Case("safe_path_m", ["-m", "json.tool", "--help"], python=["-P"]),
    Case("safe_path_variable", ["argv_and_path.py"], environment={"PYTHONSAFEPATH": "1"}),
    Case("warnings_variable", ["warns.py"], environment={"PYTHONWARNINGS": "error"}),
    Case("no_user_site", ["argv_and_path.py"], python=["-s"]),
    Case("hash_based_pycs", ["argv_and_path.py"], python=["--check-hash-based-pycs", "never"]),
    Case(
        "tracemalloc",
        [
            "-c",
            "import tracemalloc as t; print(t.is_tracing(), t.get_traceback_limit())",
        ],
        python=["-X", "tracemalloc=5"],
    ),
    Case(
        "faulthandler",
        ["-c", "import faulthandler; print(faulthandler.is_enabled())"],
        python=["-X", "faulthandler"],
    ),
    Case(
        "int_digits", ["-c", "print(len(str(10**5000)))"], python=["-X", "int_max_str_digits=6000"]
    ),
    Case("malloc_debug", ["argv_and_path.py"], environment={"PYTHONMALLOC": "debug"}),
    Case("C_locale", ["context.py"], environment={"LANG": "", "LC_ALL": "", "LC_CTYPE": ""}),
    Case("C_locale_forced", ["context.py"], environment={"LC_ALL": "C"}),
    Case("inspect", ["-c", "x = 1"], python=["-i"], stdin=b"print('prompt', x)\n"),
    Case("inspect_after_error", ["-c", "x = 1; 1/0"], python=["-i"], stdin=b"print('prompt', x)\n"),
    Case(
        "inspect_by_program",
        ["-c", "import os; x = 2; os.environ['PYTHONINSPECT'] = '1'"],
        stdin=b"print('prompt', x)\n",
    ),
    # the interpreter's options, given to `run`
    Case("run_X", ["argv_and_path.py"], run=["-X", "dev"], plain=["-X", "dev"]),
    Case(
        "run_X_joined",
        ["argv_and_path.py"],
        run=["-Xno_debug_ranges"],
        plain=["-X", "no_debug_ranges"],
    ),
    Case("run_W", ["warns.py"], run=["-W", "error"], plain=["-W", "error"]),
    Case(
        "run_both",
        ["argv_and_path.py"],
        python=["-O"],
        run=["-W", "ignore", "-X", "a=b", "-X", "utf8"],
        plain=["-X", "a=b", "-X", "utf8", "-W", "ignore"],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, tmp_path: Path) -> None:
    compare(case, tmp_path)
