"""Records a Python that a recorded process has executed: subprocess, spawn, exec.

src/native/python.c runs this file, in a namespace of its own, when the interpreter is about to run
its program. `words`, `parent` and `generation` come from there. Whatever goes wrong here, the
program runs unrecorded. It must find the interpreter as it would be without us, so this leaves
nothing behind but pymemtrace and pymemtrace._core in sys.modules.
"""

import _frozen_importlib
import _frozen_importlib_external
import _imp
import sys

TYPE_CHECKING = False  # as in typing, which is not to be imported here
if TYPE_CHECKING:
    from typing import Any

    words: dict[str, str]
    parent: int
    generation: int

NAMES_TRIED = 1000
NUMBERS = ("events", "max_memory_bytes", "max_size_bytes", "temporaries", "native")

# The process that multiprocessing keeps to tidy up does nothing that anybody would ask about.
HELPERS = ("from multiprocessing.resource_tracker import",)


def is_helper() -> bool:
    return any(word.startswith(HELPERS) for word in sys.orig_argv)


def load(name: str, path: str, loader: "Any", folders: "list[str] | None") -> "Any":
    found = loader(name, path)
    spec: Any = _frozen_importlib_external.spec_from_file_location(
        name, path, loader=found, submodule_search_locations=folders
    )
    module = _frozen_importlib.module_from_spec(spec)
    sys.modules[name] = module
    found.exec_module(module)
    return module


def load_core() -> "Any":
    """The extension from the very files that record the parent, wherever sys.path leads."""
    external = _frozen_importlib_external
    before = {name for name in sys.modules if name.partition(".")[0] == "pymemtrace"}
    try:
        if before:  # sitecustomize has imported something of that name
            core = sys.modules["pymemtrace._core"]
            return core if core.__file__ == words["core"] else None
        core = load("pymemtrace._core", words["core"], external.ExtensionFileLoader, None)
        package = load(
            "pymemtrace", words["package"] + "/__init__.py", external.SourceFileLoader,
            [words["package"]],
        )  # fmt: skip
        package._core = core
        return core
    except BaseException:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pymemtrace"]:
            if name not in before:
                del sys.modules[name]
        raise


def start(core: "Any") -> None:
    import posix

    pid = posix.getpid()
    options = {name: int(words[name]) for name in NUMBERS if name in words}
    if "interval_s" in words:
        options["interval_s"] = float(words["interval_s"])  # type: ignore[assignment]
    follow = "".join(f"{name}={value}\x1f" for name, value in words.items())
    for number in range(NAMES_TRIED):
        more = f"-{number}" if number else ""
        try:
            core.start(
                f"{words['base']}.{pid}{more}.pmt", argv=sys.orig_argv, follow=follow,
                base=words["base"], parent=parent, generation=generation, **options,
            )  # fmt: skip
            return
        except core.CaptureExistsError:
            continue


def call_when_main_returned(core: "Any") -> None:
    """The last exit handler, through a module object that sys.modules does not show."""
    importer: Any = _frozen_importlib.BuiltinImporter
    spec = _frozen_importlib.ModuleSpec("atexit", importer)
    atexit = _imp.create_builtin(spec)
    _imp.exec_builtin(atexit)
    atexit.register(core.main_returned)


if sys.implementation.cache_tag == words["tag"] and not is_helper():
    _core = load_core()
    if _core is not None:
        call_when_main_returned(_core)
        start(_core)
