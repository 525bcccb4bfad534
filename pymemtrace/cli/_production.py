"""What `pymemtrace doctor` says of recordings in production: their start, place and limits."""

import os
import shutil
import site
import sysconfig

import pymemtrace
from pymemtrace import _boxes, _cgroup, _environment, _volume
from pymemtrace.cli import _format
from pymemtrace.cli._check import Check

PTH = "pymemtrace.pth"


def settings_here() -> tuple[_environment.Settings, list[str], bool]:
    """Of PYMEMTRACE, or the usual ones; what is wrong with it; whether it is set."""
    value = os.environ.get(_environment.VARIABLE)
    settings, problems = _environment.parse(value or "")
    return settings or _environment.Settings(), problems, settings is not None


def site_folders() -> set[str]:
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    folders += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return {os.path.realpath(folder) for folder in folders}


def check_environment() -> Check:
    name = "PYMEMTRACE"
    folder = os.path.dirname(os.path.dirname(os.path.realpath(pymemtrace.__file__)))
    _, problems, is_set = settings_here()
    if folder not in site_folders() or not os.path.exists(os.path.join(folder, PTH)):
        return Check(
            name, False, f"the variable starts no recording here: there is no {PTH} beside"
            " the package, or it lies where the interpreter does not look for it",
            "install the package into this interpreter's site-packages by pip",
        )  # fmt: skip
    if problems:
        return Check(name, False, f"it is set, but {_format.clean('; '.join(problems))}",
                     "mend the variable")  # fmt: skip
    state = "is set and starts a recording" if is_set else "would start a recording; it is not set"
    return Check(name, True, f"the variable {state}")


def check_box() -> Check:
    """Whether what a box says outlives what it tells of."""
    name = "box"
    settings, _, _ = settings_here()
    folder = os.path.abspath(settings.dir)
    shown = _format.clean(folder)
    remedy = "name another folder: PYMEMTRACE=dir=FOLDER, or run -o"
    try:
        if os.path.isdir(folder):
            _boxes.Folder(folder, create=False).close()
        else:
            folder = os.path.dirname(folder)
        free = shutil.disk_usage(folder).free
    except _boxes.Refused as refused:
        return Check(
            name, False, _format.clean(str(refused)).partition(": name another")[0], remedy
        )
    except OSError as error:
        return Check(name, False, f"{shown}: {error.strerror}", remedy)
    volume = _volume.volume_of(folder)
    if volume.problem:
        return Check(name, False, f"{shown}: {volume.problem}", volume.remedy)
    needed = min(settings.box_bytes * (settings.keep + 2), settings.max_bytes + settings.box_bytes)
    if free < needed:
        return Check(
            name, False, f"{shown}: {_format.size(free)} free; boxes may need"
            f" {_format.size(needed)}", "make room, or set box= and keep= lower",
        )  # fmt: skip
    container = _volume.container_here()
    place = f"a volume of its own at {_format.clean(volume.point)}" if container else volume.kind
    detail = f"{shown}: {place}, {_format.size(free)} free"
    if container:
        detail += f"; this is a container ({container})"
    return Check(name, True, detail)


def check_memory() -> Check:
    """What a report will know of a death by lack of memory."""
    name = "memory limit"
    group = _cgroup.group_here()
    if group is None:
        return Check(
            name, False, "no cgroup with the memory controller can be seen: a report cannot tell"
            " whether the OOM killer ended a process", f"mount {_cgroup.ROOT} (read-only will do)",
        )  # fmt: skip
    limit = group.limit_bytes
    detail = f"cgroup version {group.version}, "
    detail += f"limit {_format.size(limit)}" if limit else "no limit"
    pressure = [os.path.join(group.folder, "memory.pressure"), "/proc/pressure/memory"]
    if not any(_cgroup.read(path) for path in pressure):
        detail += "; no pressure figures (PSI) from this kernel"
    return Check(name, True, detail)
