"""The record of a target: its canonical JSON, kept as an artifact, so that a build is retried with the target it had.

Owns the form of the record. The caller decides which target is recorded for which build.
"""

import hashlib
import tempfile
from pathlib import Path

import msgspec

from farm.artifacts.base import ArtifactStore
from farm.errors import BadTarget, StoreTrouble
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.target import Target

_FORMAT = 1
_MAX_BYTES = 2**20  # a large target's record has a few thousand bytes


class _Record(msgspec.Struct, frozen=True):
    format: int
    target: Target


def to_record(target: Target) -> bytes:
    """The same bytes for the same target, on every host."""
    return msgspec.json.encode(_Record(format=_FORMAT, target=target), order="sorted")


def digest_of(target: Target) -> str:
    """The sha256 of the target's record, in hexadecimal."""
    return hashlib.sha256(to_record(target)).hexdigest()


def record_target(target: Target, store: ArtifactStore) -> Artifact:
    """Store the target's record; the same target again is a no-op. Raises StoreTrouble."""
    try:
        with tempfile.TemporaryDirectory(prefix="farm-target-") as folder:
            path = Path(folder) / "record"
            path.write_bytes(to_record(target))
            return store.put(path, name=f"{target.name}.target.json", kind=ArtifactKind.RECORD)
    except OSError as error:
        raise StoreTrouble(f"target {target.name} was not recorded: {error}") from error


def read_record(sha256: str, store: ArtifactStore) -> Target:
    """The recorded target. Raises NotFound, BadTarget for an artifact that is no target's record, StoreTrouble."""
    try:
        with store.open(sha256) as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise StoreTrouble(f"the record {sha256} of a target was not read: {error}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BadTarget(f"artifact {sha256} is damaged or too large to be a target's record; enqueue the build again")
    try:
        record = msgspec.json.decode(content, type=_Record)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise BadTarget(f"artifact {sha256} is no target's record: {error}") from error
    if record.format != _FORMAT:
        raise BadTarget(f"the target's record {sha256} has format {record.format}; this farm reads format {_FORMAT}")
    return record.target
