"""Records a Python that a recorded process has executed: subprocess, spawn, exec.

src/native/python.c runs this file, in a namespace of its own, when the interpreter is about to run
its program, and calls record(). Whatever goes wrong here, the program runs unrecorded. It must find
the interpreter as it would be without us, so this leaves nothing behind that it could see, in
sys.modules or elsewhere.
"""

import _frozen_importlib
import _frozen_importlib_external
import _imp
import posix
import sys

TYPE_CHECKING = False  # as in typing, which is not to be imported here
if TYPE_CHECKING:
    from typing import Any

NAMES_TRIED = 1000
NUMBERS = ("events", "max_memory_bytes", "max_size_bytes", "temporaries", "native",
           "native_traces", "async_parents", "sample_bytes")  # fmt: skip

# The process that multiprocessing keeps to tidy up does nothing that anybody would ask about.
HELPER = "from multiprocessing.resource_tracker import"


def load_core(path: str) -> "Any":
    """The extension from the very file that records the parent, wherever sys.path leads. It is not
    put into sys.modules: what the program imports, or cannot import, is its own affair."""
    name = "pymemtrace._core"
    loader: Any = _frozen_importlib_external.ExtensionFileLoader(name, path)
    spec: Any = _frozen_importlib.ModuleSpec(name, loader, origin=path)
    before = set(sys.modules)
    core = _frozen_importlib.module_from_spec(spec)
    loader.exec_module(core)
    for new in set(sys.modules) - before:  # under -X dev the codec of its name is looked up
        del sys.modules[new]
        package, _, last = new.rpartition(".")
        vars(sys.modules.get(package, sys)).pop(last, None)
    return core


def start(core: "Any", words: "dict[str, str]", parent: int, generation: int) -> None:
    options: dict[str, Any] = {name: int(words[name]) for name in NUMBERS if name in words}
    if "interval_s" in words:
        options["interval_s"] = float(words["interval_s"])
    follow = "".join(f"{name}={value}\x1f" for name, value in words.items())
    for number in range(NAMES_TRIED):
        more = f"-{number}" if number else ""
        try:
            core.start(
                f"{words['base']}.{posix.getpid()}{more}.pmt", argv=sys.orig_argv, follow=follow,
                base=words["base"], parent=parent, generation=generation, **options,
            )  # fmt: skip
            return
        except core.CaptureExistsError:
            continue


def call_when_main_returned(core: "Any") -> None:
    """The last exit handler, through a module object that sys.modules does not show."""
    importer: Any = _frozen_importlib.BuiltinImporter
    atexit = _imp.create_builtin(_frozen_importlib.ModuleSpec("atexit", importer))
    _imp.exec_builtin(atexit)
    atexit.register(core.main_returned)


def record(words: "dict[str, str]", parent: int, generation: int) -> None:
    """words: as _launch.child_words() has made them."""
    if sys.implementation.cache_tag != words["tag"]:
        return
    if any(word.startswith(HELPER) for word in sys.orig_argv):
        return
    core = load_core(words["core"])
    call_when_main_returned(core)
    start(core, words, parent, generation)
