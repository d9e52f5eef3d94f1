"""Lays the spec and its files out for a root, and asks rpm there, also for a spec that includes a file not here yet.

rpm ends with an error when a spec includes a file that is missing. Then rpm is asked once more, with the question
itself in place of each missing file: its answer has the sources that the spec had named by then, and so perhaps the
file's URL.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from farm.errors import Trouble, disk_errors
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext, over_disk
from workers.core.text import shown
from workers.formats.base import GatherRequest
from workers.formats.rpm import asking
from workers.formats.rpm.asking import Answer, AskRequest, NamedSource, Told
from workers.formats.rpm.engine import BuildEngine
from workers.formats.rpm.git_words import explained_reason
from workers.sources.content import Content

_CHUNK_BYTES = 2**20
_REASON_CHARS = 500
_READABLE_BY_ALL = 0o004


@dataclass(frozen=True, kw_only=True)
class Missing:
    """rpm could not read the spec, and `names` are files that it mentioned and that are not here. `known` are the
    sources that the spec had named by then. `reason` is rpm's error."""

    reason: str
    names: tuple[str, ...]
    known: tuple[NamedSource, ...]


class Asker:
    """Asks for one spec, as often as its files change."""

    def __init__(self, request: GatherRequest, context: StepContext, engine: BuildEngine, recipe: str) -> None:
        self._request = request
        self._context = context
        self._engine = engine
        self._recipe = recipe
        self._folder = context.workdir / "asked"
        self._laid: set[str] = set()
        self._left_bytes = context.limits.disk_bytes

    def ask(self, files: Mapping[str, Content], executable: set[str]) -> dict[Arch, Answer] | Missing:
        """The answers by arch. Raises Ended with rpm's error for a spec that it cannot read, and trouble."""
        self._folder.mkdir(mode=0o755, exist_ok=True)
        self._folder.chmod(0o755)
        for name, content in files.items():
            if name not in self._laid:
                with disk_errors(Trouble, f"{shown(name)} could not be laid out for rpm"):
                    self._lay(name, content, is_executable=name in executable)
        told = self._told()
        if told.outcome is Outcome.SUCCEEDED:
            return asking.answers(told, self._request.arches)
        if told.outcome is not Outcome.FAILED or told.reason is not None:
            raise Ended(told.outcome, f"reading the spec {told.reason or 'failed'}")
        reason = self._reason(told.said, files[self._recipe].read())
        names = tuple(name for name in asking.mentioned(told.said) if name not in files and _is_plain(name))
        if not names:
            raise Ended(Outcome.FAILED, reason)
        return Missing(reason=reason, names=names, known=self._known(names))

    def _reason(self, said: bytes, recipe: bytes) -> str:
        error = asking.parse_error(said) or "rpm cannot read the spec; its log says why"
        return shown(explained_reason(error, said=said, recipe=recipe) or error, limit=_REASON_CHARS)

    def _known(self, names: tuple[str, ...]) -> tuple[NamedSource, ...]:
        self._context.log.note(f"rpm read {', '.join(map(shown, names))}, not here yet; asking what named it")
        for name in names:
            self._write(name, asking.QUESTION)
        try:
            return asking.partial(self._told(), self._request.arches[0])
        finally:
            for name in names:
                (self._folder / name).unlink()

    def _told(self) -> Told:
        request = AskRequest(
            target=self._request.target,
            arches=self._request.arches,
            options=self._request.options,
            folder=self._folder,
            recipe=self._recipe,
        )
        return self._engine.ask(request, self._context)

    def _lay(self, name: str, content: Content, *, is_executable: bool) -> None:
        self._laid.add(name)
        path = self._folder / name
        if name == self._recipe:
            self._write(name, content.read() + asking.QUESTION_AT_END)
            return
        self._left_bytes -= content.size_bytes
        if self._left_bytes < 0:
            raise over_disk(
                f"the sources are larger than the step's disk limit of {self._context.limits.disk_bytes} bytes"
            )
        is_whole = content.offset == 0 and content.file.stat().st_size == content.size_bytes
        if is_whole and content.file.stat().st_mode & _READABLE_BY_ALL:
            # The root shows the folder read-only, to a user who does not own the file.
            with suppress(OSError):
                os.link(content.file, path)
                return
        with content.open(self._context.stop) as source, path.open("xb") as copy:
            left = content.size_bytes
            while left and (chunk := source.read(min(left, _CHUNK_BYTES))):
                copy.write(chunk)
                left -= len(chunk)
        path.chmod(0o755 if is_executable else 0o644)

    def _write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.write_bytes(data)
        path.chmod(0o644)


def _is_plain(name: str) -> bool:
    return name.isprintable() and name not in (".", "..") and len(os.fsencode(name)) <= 255
