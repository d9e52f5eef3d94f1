"""The contents of a build root as the attempt recorded them, and the difference between two of them.

A build host wrote the record: it may have any content.
"""

from dataclasses import dataclass

from farm.artifacts.base import ArtifactStore
from farm.formats.registry import format_of
from farm.formats.root_record import decode_root
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import Build

RECORD_NAME = "root.json"
_RECORD_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class RootChange:
    """A package that differs: `before` or `after` is None for a package that one root does not have."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class RootDifference:
    """From the root of build `before` to this build's."""

    before: int
    changes: tuple[RootChange, ...]


def root_records(build: Build) -> dict[Arch, Artifact]:
    """By arch, the record of the root of the last attempt that stored one."""
    found: dict[Arch, Artifact] = {}
    for step in build.steps:
        for attempt in step.attempts:
            for one in attempt.artifacts:
                if step.arch and one.kind is ArtifactKind.RECORD and one.name == RECORD_NAME:
                    found[step.arch] = one
    return found


def read_root(store: ArtifactStore, artifact: Artifact) -> dict[str, str]:
    """The digest of each package by its identity; empty for a record that cannot be read. Raises NotFound."""
    with store.open(artifact.sha256) as file:
        return decode_root(file.read(_RECORD_BYTES))


def root_changes(before: dict[str, str], after: dict[str, str], form: str) -> tuple[RootChange, ...]:
    """The packages that were added, removed, or have another version or content, by name."""
    gone = {key: value for key, value in before.items() if after.get(key) != value}
    new = {key: value for key, value in after.items() if before.get(key) != value}
    changes = []
    was, now = _by_name(gone, form), _by_name(new, form)
    for name in sorted({*was, *now}):
        old, young = sorted(was.get(name, ())), sorted(now.get(name, ()))
        if len(old) == len(young) == 1:
            changes.append(RootChange(name=name, before=old[0], after=young[0]))
            continue
        changes += [RootChange(name=name, before=one, after=None) for one in old]
        changes += [RootChange(name=name, before=None, after=one) for one in young]
    return tuple(changes)


def _by_name(packages: dict[str, str], form: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for identity in packages:
        found.setdefault(_name_of(identity, form), []).append(identity)
    return found


def _name_of(identity: str, form: str) -> str:
    try:
        return format_of(form).parse_identity(identity).name
    except ValueError:
        return identity
