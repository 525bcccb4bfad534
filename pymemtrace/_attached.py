# This runs in a process that `pymemtrace attach` or `detach` has reached (cli/_control.py): in its
# main thread, between two instructions of the program, or in a thread of its own. folder and path
# are where the request is, and the extension of this installation. Whatever goes wrong, the program
# goes on as if nothing had been: no output, nothing in sys.modules, no exception.
#
# A signal handler of the program can raise its exception here. It is kept until our work is done,
# and raised in the program then. Ours come from the lines of this file, its from other frames.
#
# No docstring and no functions: at the end of a recording, what this needs is recorded, too.
import _frozen_importlib
import _imp
import posix
import sys

folder = path = ""  # this line is replaced

core = None
kept = []
for _ in range(9):
    try:
        if core is None:
            before = set(sys.modules)
            spec = _frozen_importlib.ModuleSpec("pymemtrace._core", None, origin=path)
            loaded = _imp.create_dynamic(spec)
            _imp.exec_dynamic(loaded)
            for name in set(sys.modules) - before:
                if name.startswith("encodings."):  # looked up under -X dev; others import, too
                    del sys.modules[name]
            core = loaded
        core.attend(folder)
        break
    except BaseException as error:
        trace = error.__traceback__
        if isinstance(error, KeyboardInterrupt) or (trace and trace.tb_next):
            kept.append(error.with_traceback(None))
            continue
        text = f"kind=unloadable\x1ftext={error}\x1f".encode("utf-8", "replace")
        try:
            fd = posix.open(
                f"{folder}/answer", posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, 0o600
            )
            posix.write(fd, text)
            posix.close(fd)
        except OSError:
            pass
        break
for foreign in kept:
    if core is not None:
        core.raise_soon(foreign)
