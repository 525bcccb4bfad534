"""Runs a program under the recorder as `python` itself would run it.

`pymemtrace run` (cli/run.py) replaces its process by `python <options> .../_launch.py ...`: this
file, as a script. The second start costs some ten milliseconds and buys three things. The modules
of the command line (argparse and what it imports) are not in the program's process, where they
would make its own imports of them look free. Options such as -X and -W take effect, which they do
at start only. And `__main__`, the flags and the module search path are made by the interpreter
itself.

What this leaves in sys.modules: pymemtrace and pymemtrace._core. All else that is imported here has
been imported by the start of every interpreter (under -S, `os` has not).

The program runs in _core.run_main(), which hides our frames from it, ends the process as the
interpreter would, and does not come back. Nothing here may keep a reference to the new `__main__`.
"""

import _frozen_importlib
import _frozen_importlib_external
import os
import sys

TYPE_CHECKING = False  # as in typing, which is not to be imported here
if TYPE_CHECKING:
    from typing import Any, NoReturn

EXIT_USAGE = 2
EXIT_IMPOSSIBLE = 4

# How the command line hands its options over: words KEY=VALUE, then "--", then what python would
# have been given. The environment would be passed on to the program's children.
INT_OPTIONS = (
    "force", "events", "quiet", "max_memory_bytes", "max_size_bytes", "temporaries", "native",
    "native_traces", "async_parents", "sample_bytes",
)  # fmt: skip
CHILD_OPTIONS = (
    "events", "max_memory_bytes", "max_size_bytes", "temporaries", "native", "native_traces",
    "async_parents", "sample_bytes", "interval_s",
)  # fmt: skip


def fail(status: int, what: str, where: object, remedy: str) -> "NoReturn":
    sys.stderr.write(f"pymemtrace: {what}: {where}: {remedy}\n")
    raise SystemExit(status)


class Program:
    """What there is to run, in the terms of _core.run_main(), and what is to be set before."""

    def __init__(self, target: "list[str]") -> None:
        self.argv = target
        self.what = ""
        self.fd = -1
        self.path0: str | None = ""
        self.unsafe_path0 = True  # left out under -P and -I
        self.loader: Any = None
        self.file: str | None = None
        if target[0] == "-c":
            self.kind, self.what = "string", target[1]
            self.argv = ["-c", *target[2:]]
            if sys.version_info >= (3, 14):
                self.what = dedent(self.what)
        elif target[0] == "-m":
            self.kind, self.what = "module", target[1]
            self.argv = ["-m", *target[2:]]
            try:
                self.path0 = os.getcwd()
            except OSError:
                self.path0 = None
        elif target[0] == "-":
            self.kind, self.file = "stdin", "<stdin>"
        else:
            self._find_script(target[0])

    def _find_script(self, name: str) -> None:
        filename = name
        if not os.path.isabs(name):
            try:
                # not normalised, as __file__ is not
                filename = os.getcwd() if name == "." else f"{os.getcwd()}/{name}"
            except OSError:
                pass
        if has_importer(filename):
            self.kind, self.path0, self.unsafe_path0 = "directory", filename, False
            return
        try:
            self.fd = os.open(filename, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            fail(
                EXIT_USAGE,
                f"cannot open the script ({error.strerror})",
                filename,
                "give the path of a Python file, -m MODULE, -c CODE, or - for standard input",
            )
        self.kind, self.what, self.file = "file", filename, filename
        self.path0 = script_directory(name)
        loader: type[Any] = _frozen_importlib_external.SourceFileLoader
        if is_pyc(filename, self.fd):
            self.kind, loader = "pyc", _frozen_importlib_external.SourcelessFileLoader
        self.loader = loader("__main__", filename)

    def install(self, flags: "list[str]", target: "list[str]") -> None:
        """Leaves sys and sys.modules as the interpreter has them just before it runs a program."""
        sys.argv = self.argv
        sys.orig_argv = flags + target
        if self.path0 is not None and not (self.unsafe_path0 and sys.flags.safe_path):
            sys.path.insert(0, self.path0)
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        main.__loader__ = _frozen_importlib.BuiltinImporter
        if sys.version_info < (3, 14):
            main.__annotations__ = {}
        vars(main)["__builtins__"] = sys.modules["builtins"]
        if self.file is not None:
            main.__file__ = self.file
            if sys.version_info < (3, 15):
                vars(main)["__cached__"] = None
        if self.loader is not None:
            main.__loader__ = self.loader


def has_importer(path: str) -> bool:
    """Whether the interpreter would take `path` for a directory or archive with a `__main__`."""
    if path not in sys.path_importer_cache:
        found = None
        for hook in sys.path_hooks:
            try:
                found = hook(path)
                break
            except ImportError:
                continue
        sys.path_importer_cache[path] = found
    return sys.path_importer_cache[path] is not None


def script_directory(name: str) -> str:
    """sys.path[0] for a script. One link is followed by its text, then the path is resolved, which
    fails for what /dev/fd/N of a pipe links to: the order matters there."""
    try:
        link = os.readlink(name)
        if link.startswith("/"):
            name = link
        elif "/" in link:
            name = os.path.join(os.path.dirname(name), link)
    except OSError:
        pass
    try:
        name = os.path.realpath(name, strict=True)
    except OSError:
        pass
    return os.path.dirname(name)


def is_pyc(filename: str, fd: int) -> bool:
    if filename.endswith(".pyc"):
        return True
    try:
        return os.pread(fd, 2, 0) == _frozen_importlib_external.MAGIC_NUMBER[:2]
    except OSError:  # a pipe
        return False


def dedent(source: str) -> str:
    """Takes the common indentation off the code of -c, as the interpreter does from 3.14 on."""
    lines = source.split("\n")
    margin: str | None = None
    for line in lines:
        text = line.lstrip(" \t")
        if not text:
            continue
        indent = line[: len(line) - len(text)]
        if margin is None:
            margin = indent
        while not indent.startswith(margin):
            margin = margin[:-1]
    if not margin:
        return source
    return "\n".join(line[len(margin) :] if line.strip(" \t") else "" for line in lines)


def load_core() -> "Any":
    """The extension of the package that this file belongs to.

    It is found the usual way where it can be (an editable installation has it in another folder);
    else, as for a package that the command found through the current directory, beside this file.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        import pymemtrace

        if os.path.samefile(os.path.dirname(pymemtrace.__file__), here):
            from pymemtrace import _core

            return _core
    except ImportError:
        pass
    for name in [name for name in sys.modules if name.partition(".")[0] == "pymemtrace"]:
        del sys.modules[name]
    sys.path.insert(0, os.path.dirname(here))
    try:
        from pymemtrace import _core

        return _core
    finally:
        del sys.path[0]


def child_words(core: "Any", options: "dict[str, str]", base: str) -> str:
    """What an executed child must know to record itself (_child.py, src/native/exec.c)."""
    words = {
        "package": os.path.dirname(os.path.abspath(__file__)),
        "core": os.path.abspath(core.__file__),
        "library": options.get("library", ""),
        "interpreter": os.readlink("/proc/self/exe"),
        "tag": sys.implementation.cache_tag,
        "base": base,
    }
    words |= {name: options[name] for name in CHILD_OPTIONS if name in options}
    return "".join(f"{name}={value}\x1f" for name, value in words.items())


def start(core: "Any", options: "dict[str, str]", command: "list[str]", base: "str | None") -> None:
    """base: what the names of the children's captures begin with; None: they are not recorded."""
    path = options["path"]
    numbers = {name: int(options[name]) for name in INT_OPTIONS if name in options}
    numbers.pop("quiet", None)
    if "interval_s" in options:
        numbers["interval_s"] = float(options["interval_s"])  # type: ignore[assignment]
    follow = None if base is None else child_words(core, options, base)
    try:
        core.start(path, argv=command, follow=follow, **numbers)
    except core.CaptureExistsError:
        fail(
            EXIT_USAGE,
            "the capture exists already",
            path,
            "it is no regular file: choose another with -o"
            if numbers.get("force") or not os.path.isfile(path)
            else "choose another file with -o, or overwrite it with -f",
        )
    except core.UnsupportedError as error:
        fail(EXIT_IMPOSSIBLE, "cannot record here", error, "see `pymemtrace doctor`")
    except OSError as error:
        fail(
            EXIT_USAGE,
            f"cannot write the capture ({error.strerror or error})",
            path,
            "choose a file in a directory that exists and that you may write to, with -o",
        )


def launch(words: "list[str]", flags: "list[str]", core: "Any") -> None:
    """words: what follows this file on the command line. flags: the interpreter and its options."""
    end = words.index("--")
    options = dict(word.split("=", 1) for word in words[:end])
    target = words[end + 1 :]
    program = Program(target)
    base = options["path"].removesuffix(".pmt") if options.get("follow") == "1" else None
    start(core, options, flags + target, base)
    note = None if options.get("quiet") == "1" else f"pymemtrace: wrote {options['path']}\n"
    if options.get("live") == "1" and sys.stdout is not None:
        # somebody watches the file that it is
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    program.install(flags, target)
    core.run_main(program.kind, program.what, program.fd, note, base)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # this file's directory
    launch(sys.argv[1:], sys.orig_argv[: len(sys.orig_argv) - len(sys.argv)], load_core())
