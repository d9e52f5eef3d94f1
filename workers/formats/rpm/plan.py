"""The plan of an installation: the packages that dnf is about to install and remove, as dnf itself lists them.

Owns the pipe from dnf's plugin (dnf_plugins/farm_plan.py) to the worker, its bounds and its form. The plugin writes one
line before the first scriptlet runs. The worker reads that line and nothing after it, through a descriptor that it
opened before the sandbox existed, so a scriptlet can neither change nor block the plan.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from farm.model.nevra import Nevra
from workers.core.text import shown
from workers.formats.rpm.capabilities import Capability
from workers.roots.root import RootPackage

_PIPE_BYTES = 2**20
_PACKAGES = 20_000
_DETAILS = 2_000_000
_DIGEST_CHARS = 128
_NAME_CHARS = 300


class BadPlan(ValueError):
    """The plan has an entry that the farm cannot record; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """A package that dnf installs. Only the plan of a template has `provides` and `files`."""

    nevra: str
    digest: str
    provides: tuple[Capability, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`removed` are NEVRAs. `refused` is the reason why the plugin stopped dnf."""

    added: tuple[Added, ...]
    removed: tuple[str, ...]
    refused: str = ""

    @property
    def packages(self) -> tuple[RootPackage, ...]:
        return tuple(RootPackage(identity=_nevra(one.nevra), digest=one.digest) for one in self.added)


class PlanPipe:
    """The worker's end. `take` is called repeatedly while dnf runs, and once after."""

    def __init__(self, descriptor: int, *, limit_bytes: int) -> None:
        self._descriptor = descriptor
        self._limit_bytes = limit_bytes
        self._line = bytearray()
        self._is_whole = False

    def take(self) -> None:
        """Read the data that has come so far. Past the limit data is dropped, so that dnf does not hang."""
        while not self._is_whole:
            try:
                data = os.read(self._descriptor, _PIPE_BYTES)
            except BlockingIOError:
                return
            head, newline, _ = data.partition(b"\n")
            self._line += head[: self._limit_bytes + 1 - len(self._line)]
            self._is_whole = bool(newline)

    @property
    def has_begun(self) -> bool:
        """Whether a scriptlet may have run: the plan has come, and is not empty."""
        if not self._is_whole:
            return False
        try:
            plan = self.plan()
        except BadPlan:
            return True
        return plan is not None and not plan.refused and bool(plan.added or plan.removed)

    def plan(self) -> Plan | None:
        """The plan; None if dnf ended before it had one. Raises BadPlan."""
        if not self._is_whole:
            return None
        if len(self._line) > self._limit_bytes:
            raise BadPlan(f"the list of packages to install has more than {self._limit_bytes} bytes")
        return parse(bytes(self._line))


@contextmanager
def plan_pipe(path: Path, *, limit_bytes: int) -> Iterator[PlanPipe]:
    """Make the pipe at `path`. No sandbox may have seen its folder before."""
    os.mkfifo(path, mode=0o600)
    # Open for reading and writing: a pipe without a writer would be at its end before dnf opens it.
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a smaller pipe is only slower
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        yield PlanPipe(descriptor, limit_bytes=limit_bytes)
    finally:
        os.close(descriptor)


def parse(line: bytes) -> Plan:
    """Raises BadPlan."""
    try:
        plan = msgspec.json.decode(line, type=Plan)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadPlan(f"the plan of the transaction cannot be read: {shown(str(error), limit=_NAME_CHARS)}") from error
    if len(plan.added) > _PACKAGES or len(plan.removed) > _PACKAGES:
        raise BadPlan(f"more than {_PACKAGES} packages would be installed or removed")
    if sum(len(one.provides) + len(one.files) for one in plan.added) > _DETAILS:
        raise BadPlan(f"the packages to install have more than {_DETAILS} provides and files")
    for one in plan.added:
        _nevra(one.nevra)
        if len(one.digest) > _DIGEST_CHARS or not one.digest.isprintable():
            raise BadPlan(f"the digest of {shown(one.nevra, limit=_NAME_CHARS)} is malformed")
    return plan


def _nevra(text: str) -> str:
    if not text.isprintable():
        raise BadPlan(f"the package name {shown(text, limit=_NAME_CHARS)} has characters that cannot be printed")
    try:
        return str(Nevra.parse(text))
    except ValueError as error:
        raise BadPlan(f"{shown(text, limit=_NAME_CHARS)} is not the name of a package") from error
