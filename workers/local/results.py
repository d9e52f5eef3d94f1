"""Puts packages, logs and records of a local build into a folder of the person, with the person's rights."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from farm.artifacts.base import ArtifactStore
from farm.artifacts.names import check_name
from farm.errors import BadRequest
from farm.model.artifact import ArtifactKind
from farm.model.local import StoredArtifact
from workers.core.users import User, acting_as

#: The list of the files that were put into the folder, so that the next time they are replaced.
_LIST = ".farm-try.json"
_LIST_BYTES = 2**20


def check_results(folder: Path, who: User) -> None:
    """Make the folder. Raises BadRequest for one that cannot be written, before a build has taken its time."""
    with acting_as(who):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
        except OSError as error:
            raise _unwritable(folder, error) from error


def put_results(found: Sequence[StoredArtifact], store: ArtifactStore, folder: Path, who: User) -> tuple[Path, ...]:
    """Copy the files. Files of an earlier time are removed first; all other files in the folder stay.

    Raises BadRequest for a folder that cannot be written, and the store's errors.
    """
    named = _named([one for one in found if one.artifact.kind is not ArtifactKind.SOURCE])
    with acting_as(who):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in _earlier(folder):
                (folder / name).unlink(missing_ok=True)
            (folder / _LIST).unlink(missing_ok=True)
            (folder / _LIST).write_text(json.dumps(sorted(named)))
        except OSError as error:
            raise _unwritable(folder, error) from error
    for name, one in named.items():
        with store.open(one.artifact.sha256) as source, acting_as(who):
            try:
                (folder / name).unlink(missing_ok=True)
                with (folder / name).open("xb") as copy:
                    shutil.copyfileobj(source, copy)
            except OSError as error:
                raise _unwritable(folder, error) from error
    return tuple(folder / name for name in named)


def _unwritable(folder: Path, error: OSError) -> BadRequest:
    return BadRequest(f"--results {str(folder)!r} cannot be written: {error.strerror}; give another folder")


def _named(found: Sequence[StoredArtifact]) -> dict[str, StoredArtifact]:
    """The files by the names that they get. If several steps have one of a name, the last step's keeps it, and the
    others' begin with the step; with several arches all of them do."""
    last = {one.artifact.name: one for one in found}
    arches = len({one.arch for one in found if one.arch is not None})
    often = Counter(name for name, _ in {(one.artifact.name, one.artifact.sha256) for one in found})
    named: dict[str, StoredArtifact] = {}
    for one in found:
        name = check_name(one.artifact.name)
        is_first = often[name] == 1 or (last[name] is one and arches <= 1)
        named[name if is_first else f"{one.kind}.{one.arch or ''}.{name}".replace("..", ".")] = one
    return named


def _earlier(folder: Path) -> list[str]:
    with suppress(OSError, ValueError):
        names = json.loads((folder / _LIST).read_bytes()[:_LIST_BYTES])
        return [name for name in names if isinstance(name, str) and check_name(name) == name and name != _LIST]
    return []
