"""The heads of the farm's repositories as the scheduler knows them: from SQL, else from the back end.

They are kept in memory, so that making a build's work costs no query, and read again once a second.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from farm.config import Settings
from farm.errors import RepositoryTrouble
from farm.repositories import open_repositories
from farm.repositories.base import RepositoryBackend, RepositoryName
from farm.store.heads import Head, HeadStore

_log = logging.getLogger(__name__)

_REQUEST_S = 5.0

Note = Callable[[str, Head, Head | None], Head]


class Heads:
    """`note(path, head, instead_of)` writes the back end's answer to SQL, and returns the head that SQL has then. The
    back end is asked for one repository every `ask_every_s` at most: a hundred builds ask once."""

    def __init__(self, backend: RepositoryBackend, note: Note, *, ask_every_s: float = 2.0) -> None:
        self._backend = backend
        self._ask_every_s = ask_every_s
        self._note = note
        self._known: dict[str, Head] = {}
        self._asked: dict[str, tuple[float, RepositoryTrouble | None]] = {}

    def read(self, all_: Mapping[str, Head]) -> None:
        """Take over all heads that SQL has."""
        self._known = dict(all_)

    def learn(self, changed: Mapping[str, Head | None]) -> None:
        """Take over the heads that a transaction wrote, or dropped where the value is None."""
        for path, head in changed.items():
            if head is None:
                self._known.pop(path, None)
            else:
                self._known[path] = head

    def get(self, name: RepositoryName, *, is_doubted: bool = False) -> Head:
        """With `is_doubted` the back end is asked even if a head is known: its version may have been deleted.

        Raises RepositoryTrouble while no head is known and the back end does not answer: the content of the repository
        is unknown then.
        """
        known = self._known.get(name.path)
        if known is not None and not is_doubted:
            return known
        asked_at, trouble = self._asked.get(name.path, (-math.inf, None))
        is_recent = time.monotonic() - asked_at < self._ask_every_s
        if not is_recent or (known is None and trouble is None):
            trouble = self._ask(name, known)
            self._asked[name.path] = (time.monotonic(), trouble)
        known = self._known.get(name.path)
        if known is None:
            raise RepositoryTrouble(str(trouble))
        return known

    def _ask(self, name: RepositoryName, known: Head | None) -> RepositoryTrouble | None:
        try:
            version = self._backend.current(name)
            head = Head(version=version, url=self._backend.url(name, version) if version else "")
        except RepositoryTrouble as error:
            _log.warning("The head of %s is not known: %s", name.path, error, extra={"action": "ask"})
            return error
        self._known[name.path] = self._note(name.path, head, known)
        return None


def open_heads(settings: Settings, store: HeadStore) -> Heads:
    """The heads of the farm's repositories. The scheduler does not wait for a Pulp that is away: the step that needs
    the repository waits."""
    hasty = replace(settings, pulp_request_s=min(settings.pulp_request_s, _REQUEST_S), pulp_retry_s=0.0)

    def note(path: str, head: Head, instead_of: Head | None) -> Head:
        return store.note_head(path, head, instead_of=instead_of)

    return Heads(open_repositories(hasty), note)
