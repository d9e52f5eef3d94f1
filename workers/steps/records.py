"""Stores packages, and the records of the root and of the build's provenance."""

from collections.abc import Sequence

from farm import wire
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.work import Work
from farm.steps.build import BuildInput
from workers.core.context import StepContext
from workers.formats.base import Taken
from workers.roots.root import RootPackage


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


def store_root(packages: Sequence[RootPackage], context: StepContext) -> tuple[Artifact, ...]:
    """Record the exact root: each package's identity and digest. Empty for a root that was never made."""
    if not packages:
        return ()
    document = [{"nevra": one.identity, "digest": one.digest} for one in packages]
    return (_store_record("root.json", document, context),)


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
        "target": work.target.name,
        "target_sha256": work.target_sha256,
        "arch": given.arch,
        "srpm": {"name": given.srpm.name, "nevra": given.identity, "sha256": given.srpm.sha256},
        "repositories": [{"name": one.name, "version": one.version, "url": one.url} for one in given.repositories],
        "build_requires": rounds,
        "packages": [{"name": one.name, "nevra": one.identity, "sha256": one.sha256} for one in packages],
    }
    return _store_record("provenance.json", document, context)


def _store_record(name: str, document: object, context: StepContext) -> Artifact:
    record = context.workdir / name
    with record.open("xb") as file:  # a new file: an existing one may be a hard link to the artifact store's
        file.write(wire.to_json(document))
    return context.store.put(record, name=name, kind=ArtifactKind.RECORD, move=True, stop=context.stop)
