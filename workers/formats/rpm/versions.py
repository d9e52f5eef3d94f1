"""Asks rpm, in a root of the target without network, for the versions of specs as past commits had them.

One session answers for hundreds of specs, so it is the native engine's own and not a method of every engine.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from farm.model.outcome import Outcome
from farm.model.target import EngineName
from workers.core.context import Ended, StepContext
from workers.core.text import shown
from workers.core.untrusted import read_left
from workers.formats.base import GatherRequest
from workers.formats.rpm import asking, rpmbuild
from workers.formats.rpm.native import native_roots
from workers.isolation.sandbox import Bind
from workers.roots.session import RootSession

_INSIDE = "/run/farm/versions.sh"
_ANSWER_BYTES = 4096
_SAID_CHARS = 300
_numbers = count(1)


@dataclass(frozen=True, kw_only=True)
class OldSpec:
    """A spec and the files beside it, by name."""

    content: bytes
    files: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class SpecVersion:
    """rpm's answer for one spec: `version` is with the epoch, if there is one. `error` has rpm's words if it cannot be
    read, and the others are then empty."""

    version: str = ""
    release: str = ""
    error: str | None = None


class Versions:
    """A context manager. The root is made with the first question, and serves all later ones."""

    def __init__(self, request: GatherRequest, macros: Sequence[tuple[str, str]], context: StepContext) -> None:
        self._request = request
        self._context = context
        self._options = rpmbuild.options(request.target, request.options, source_packages_to="/builddir/results")
        self._options += rpmbuild.defines(macros)
        self._stack = ExitStack()
        self._session: RootSession | None = None

    def __enter__(self) -> "Versions":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, specs: Sequence[OldSpec]) -> list[SpecVersion]:
        """The answers, in order. Raises Ended when a limit is met, and trouble."""
        folder = self._context.workdir / f"old-specs-{next(_numbers)}"
        try:
            for number, one in enumerate(specs):
                _write(folder / str(number), one)
            return self._asked(folder, len(specs))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _asked(self, folder: Path, length: int) -> list[SpecVersion]:
        session = self._open()
        script = Bind(path=rpmbuild.SCRIPTS / "versions.sh", inside=_INSIDE)
        with session.phase("versions"):
            done = session.run(
                ["sh", _INSIDE, *self._options],
                binds=(script, Bind(path=folder, inside=asking.SOURCES_INSIDE)),
                shown=["rpmspec", "-q", "--srpm", f"({length} specs)"],
            )
        if done.outcome is not Outcome.SUCCEEDED:
            raise Ended(done.outcome, done.reason or "rpm could not be asked for the versions of past specs")
        return [_read(session.out, str(number)) for number in range(length)]

    def _open(self) -> RootSession:
        if self._session is None:
            target, arch = self._request.target, self._request.arches[0]
            if target.engine is not EngineName.NATIVE:
                words = f"the engine of {target.name} is {target.engine}, which reads no past specs"
                raise Ended(Outcome.FAILED, f"{words}; write the release into the spec instead of %autorelease")
            roots = native_roots(self._context.settings)
            template = self._stack.enter_context(roots.template(target, arch, self._context))
            self._session = self._stack.enter_context(template.session())
        return self._session


def _write(folder: Path, one: OldSpec) -> None:
    folder.mkdir(parents=True)
    lines = one.content.splitlines(keepends=True)
    prep = next((number for number, line in enumerate(lines) if line.strip() == b"%prep"), len(lines))
    files = {**one.files, "head.spec": b"".join(lines[:prep]), "whole.spec": one.content}
    for name, content in files.items():
        path = folder / name
        path.write_bytes(content)
        path.chmod(0o644)
    folder.chmod(0o755)
    folder.parent.chmod(0o755)


def _read(out: Path, number: str) -> SpecVersion:
    said = read_left(out / number, limit_bytes=_ANSWER_BYTES)
    lines = said.decode(errors="replace").split("\n") if said is not None else []
    if len(lines) < 2 or not lines[0]:
        words = (read_left(out / f"{number}.error", limit_bytes=2**20) or b"").decode(errors="replace")
        return SpecVersion(error=shown(" ".join(words.split()))[:_SAID_CHARS] or "rpm gave no version")
    return SpecVersion(version=shown(lines[0]), release=shown(lines[1]))
