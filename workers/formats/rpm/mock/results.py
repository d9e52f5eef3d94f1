"""Reads the files that mock writes beside the packages, with bounds: the list of the root, phase times, peak memory.
Never raises for missing or odd content, since it does not decide a build.

The files are written by mock's account, and a recipe in a root without its own user namespace runs as that account, so
a recipe may have written all of them.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

from farm.model.build import Phase
from farm.model.nevra import Nevra
from workers.core.untrusted import read_left
from workers.roots.root import RootPackage

_LIST_BYTES = 16 * 2**20
_MAX_PACKAGES = 20_000
_INSTALLED = re.compile(r"(\S{3,400}) [0-9]+ [0-9]+ installed")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STATE = re.compile(r"([0-9-]{10} [0-9:]{8}),([0-9]{3}) - (Start|Finish): (.{1,200})")
#: The farm's phases by the beginning of mock's states.
_PHASES = (
    ("chroot init", "template"),
    ("build setup for ", "layer"),
    ("rpmbuild ", "rpmbuild"),
    ("buildsrpm", "rpmbuild"),
)
# mock 6.7's plugin writes the name with its spelling mistake.
_MONITORS = ("system_monitor.json", "system_monior.json")


def root_packages(listing: Path, results: Path) -> tuple[RootPackage, ...]:
    """The packages of the root, by NEVRA: from `listing`, which rpm wrote in the root, or without digests from mock's
    own installed_pkgs.log. Packages older than RPM's SHA256 header digest have an empty one."""
    found = list(islice(_listed(listing), _MAX_PACKAGES)) or list(islice(_installed(results), _MAX_PACKAGES))
    return tuple(sorted(found, key=lambda package: package.identity))


def phases(results: Path) -> tuple[Phase, ...]:
    """The phases of the farm that mock's states stand for, in the order in which they ended."""
    text = (read_left(results / "state.log", limit_bytes=_LIST_BYTES) or b"").decode(errors="replace")
    started: dict[str, datetime] = {}
    seconds: dict[str, float] = {}
    for line in text.splitlines():
        if not (found := _STATE.fullmatch(line)) or (at := _instant(found[1], found[2])) is None:
            continue
        name = next((phase for begin, phase in _PHASES if found[4].startswith(begin)), None)
        if name and found[3] == "Start":
            started.setdefault(found[4], at)
        elif name and (start := started.pop(found[4], None)):
            seconds[name] = seconds.get(name, 0.0) + max(0.0, (at - start).total_seconds())
    return tuple(Phase(name=name, seconds=round(total, 3)) for name, total in seconds.items())


def peak_memory_bytes(results: Path) -> int | None:
    """The peak memory from the system_monitor plugin, if it is on, which needs isolation nspawn."""
    for name in _MONITORS:
        document = _json(results / name)
        peak = document.get("total_max_memory") if isinstance(document, dict) else None
        if isinstance(peak, int) and peak > 0:
            return peak
    return None


def without_greeting(build_log: bytes) -> bytes:
    """The output of rpmbuild. mock begins each of its logs with its own version, even if rpmbuild never runs."""
    first, _, rest = build_log.partition(b"\n")
    return rest if first.startswith(b"Mock Version: ") else build_log


def size_of(path: Path) -> int:
    """The file's size in bytes; 0 when there is no regular file."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def read_from(path: Path, offset: int, *, limit_bytes: int) -> bytes:
    """The last `limit_bytes` of a log from an offset on; empty when there is no regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        file.seek(max(offset, status.st_size - limit_bytes))
        return file.read(limit_bytes)


def _listed(listing: Path) -> Iterator[RootPackage]:
    for line in (read_left(listing, limit_bytes=_LIST_BYTES) or b"").decode(errors="replace").splitlines():
        name, _, digest = line.partition(" ")
        nevra = _nevra(name)
        if nevra and not nevra.startswith("gpg-pubkey-"):
            yield RootPackage(identity=nevra, digest=digest if _DIGEST.fullmatch(digest) else "")


def _installed(results: Path) -> Iterator[RootPackage]:
    data = read_left(results / "installed_pkgs.log", limit_bytes=_LIST_BYTES) or b""
    for line in data.decode(errors="replace").splitlines():
        found = _INSTALLED.fullmatch(line.strip())
        nevra = _nevra(found[1]) if found else None
        if nevra and not nevra.startswith("gpg-pubkey-"):
            yield RootPackage(identity=nevra, digest="")


def _nevra(text: str) -> str | None:
    try:
        return str(Nevra.parse(text))
    except ValueError:
        return None


def _instant(seconds: str, milliseconds: str) -> datetime | None:
    """A time of mock's clock, without a zone, since only differences are used."""
    try:
        return datetime.fromisoformat(f"{seconds}.{milliseconds}")
    except ValueError:
        return None


def _json(path: Path) -> object:
    try:
        return json.loads(read_left(path, limit_bytes=_LIST_BYTES) or b"null")
    except (ValueError, RecursionError):
        return None
