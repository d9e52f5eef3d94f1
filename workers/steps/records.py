"""Stores packages, and the records of the root and of the build's provenance."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from farm import wire
from farm.errors import BadRequest, NotFound
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.local import ShellRequest
from farm.model.work import Work
from farm.steps.build import BuildInput
from workers.core.context import StepContext
from workers.formats.base import Taken
from workers.roots.root import RootPackage

_ROOT, _PROVENANCE = "root.json", "provenance.json"
_RECORD_BYTES = 64 * 2**20
_AT_ONCE = 8  # packages whose way to the disk is waited for; a file system brings such files there together


def store_package(taken: Taken, kind: ArtifactKind, context: StepContext) -> Artifact:
    """Move a checked package into the artifact store, under the file name of its identity."""
    return context.store.put(
        taken.path,
        name=taken.identity.filename,
        kind=kind,
        identity=str(taken.identity),
        move=True,
        stop=context.stop,
    )


def store_packages(taken: Sequence[Taken], kind: ArtifactKind, context: StepContext) -> tuple[Artifact, ...]:
    """The same for packages, in their order, several at once: a build may have thousands, and a small file takes some
    microseconds, and then milliseconds until it is on the disk."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="store") as pool:
        return tuple(pool.map(lambda one: store_package(one, kind, context), taken))


def store_root(packages: Sequence[RootPackage], context: StepContext) -> tuple[Artifact, ...]:
    """Record the exact root: each package's identity and digest. Empty for a root that was never made."""
    if not packages:
        return ()
    document = [{"nevra": one.identity, "digest": one.digest} for one in packages]
    return (_store_record(_ROOT, document, context),)


def store_provenance(
    work: Work[BuildInput], packages: Sequence[Artifact], rounds: Sequence[Sequence[str]], context: StepContext
) -> Artifact:
    """Record by digest the inputs of the build and the packages that it made; docs/json.md has the form. `rounds` are
    the requirements that each root of the build was made to meet."""
    given = work.input
    document = {
        "format": 1,
        "attempt": work.attempt,
        "build": work.build_id,
        "package": work.package,
        "project": work.project,
        "target": work.target.name,
        "target_sha256": work.target_sha256,
        "arch": given.arch,
        "srpm": {"name": given.srpm.name, "nevra": given.identity, "sha256": given.srpm.sha256},
        "repositories": [{"name": one.name, "version": one.version, "url": one.url} for one in given.repositories],
        "build_requires": rounds,
        "packages": [{"name": one.name, "nevra": one.identity, "sha256": one.sha256} for one in packages],
    }
    return _store_record(_PROVENANCE, document, context)


def found_again(asked: ShellRequest, kind: str, wanted: Sequence[ArtifactKind]) -> Artifact:
    """The artifact of these kinds that a step of the build stored. Raises NotFound."""
    for one in asked.artifacts:
        if one.kind == kind and one.artifact.kind in wanted:
            return one.artifact
    raise NotFound(f"{asked.attempt}: its {kind} step stored no input for it; retry the build from there")


def read_root(asked: ShellRequest, context: StepContext) -> tuple[RootPackage, ...]:
    """The packages that the attempt recorded; empty without such a record. Its host may have written any text.

    Raises NotFound, BadRequest.
    """
    root = _read_record(_record(asked, _ROOT), list[_Package], context) or []
    return tuple(RootPackage(identity=one.nevra, digest=one.digest) for one in root)


def read_versions(asked: ShellRequest, context: StepContext) -> dict[str, int]:
    """The versions of the farm's own repositories that the attempt says it used, by their names; empty without such a
    record. The record has addresses too, which count for nothing: its host may have written any.

    Raises NotFound, BadRequest.
    """
    made = _read_record(_record(asked, _PROVENANCE), _Provenance, context)
    return {one.name: one.version for one in made.repositories} if made is not None else {}


def _record(asked: ShellRequest, name: str) -> Artifact | None:
    own = {
        one.artifact.name: one.artifact
        for one in asked.artifacts
        if (one.kind, one.artifact.kind) == (asked.kind, ArtifactKind.RECORD) and one.arch in (asked.arch, None)
    }
    return own.get(name)


class _Package(msgspec.Struct, frozen=True):
    nevra: str
    digest: str


class _Pinned(msgspec.Struct, frozen=True):
    name: str
    version: int


class _Provenance(msgspec.Struct, frozen=True):
    repositories: tuple[_Pinned, ...] = ()


def _read_record(artifact: Artifact | None, form: Any, context: StepContext) -> Any:
    """A build host wrote it: it may have any content. Raises NotFound, BadRequest."""
    if artifact is None:
        return None
    with context.store.open(artifact.sha256) as file:
        text = file.read(_RECORD_BYTES)
    try:
        return msgspec.json.decode(text, type=form)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"the record {artifact.name} cannot be read: {error}; retry the build") from error


def _store_record(name: str, document: object, context: StepContext) -> Artifact:
    record = context.workdir / name
    with record.open("xb") as file:  # a new file: an existing one may be a hard link to the artifact store's
        file.write(wire.to_json(document))
    return context.store.put(record, name=name, kind=ArtifactKind.RECORD, move=True, stop=context.stop)
