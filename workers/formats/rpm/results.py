"""Checks and stores the packages that a recipe made, with the records of the root and of the build's provenance.

Everything about a package is hostile: its name, its header, its contents. The files were collected by core/collect.py.
"""

from collections.abc import Iterator, Sequence

from farm import wire
from farm.formats.rpm import rpmfile
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.outcome import Outcome
from farm.model.work import Work
from farm.repositories.checks import is_package_name
from farm.steps.build import BuildInput
from workers.core.collect import Found
from workers.core.context import Ended, StepContext
from workers.core.text import shown
from workers.formats.rpm.engine import RootPackage
from workers.formats.rpm.publishable import check_publishable


def store_source(found: Sequence[Found], context: StepContext) -> tuple[Artifact, str]:
    """Store the one source package; the artifact and its NEVRA. Raises Ended when there is not exactly one."""
    if len(found) != 1:
        names = ", ".join(shown(one.name) for one in found) or "none"
        raise Ended(Outcome.FAILED, f"rpmbuild is to make one source package, and made {names}")
    try:
        nevra = rpmfile.check_source(found[0].path, stop=context.stop).nevra
    except rpmfile.BadRpm as error:
        raise Ended(Outcome.FAILED, f"the source package {shown(found[0].name)!r} {error}") from error
    check_publishable([found[0].path], context)
    artifact = context.store.put(
        found[0].path, name=nevra.filename, kind=ArtifactKind.SRPM, nevra=str(nevra), move=True, stop=context.stop
    )
    return artifact, str(nevra)


def store_packages(found: Sequence[Found], *, source: str, arch: str, context: StepContext) -> tuple[Artifact, ...]:
    """Store binary packages. `source` is the file name of the source package that all must name as theirs.

    Raises Ended for a package that is not what its name says, of another arch, of another source, that cannot be
    read, or that a repository would refuse; also when there is none.
    """
    if not found:
        raise Ended(Outcome.FAILED, "the build made no package: the spec has no %files section for this arch")
    packages = []
    for one in found:
        try:
            package = rpmfile.check_binary(one.path, stop=context.stop)
        except rpmfile.BadRpm as error:
            raise Ended(Outcome.FAILED, f"the package {shown(one.name)!r} {error}") from error
        for problem in _lies(one, package, source=source, arch=arch):
            raise Ended(Outcome.FAILED, f"the package {shown(one.name)!r} {problem}")
        packages.append((one, str(package.nevra)))
    check_publishable([one.path for one in found], context)
    return tuple(
        context.store.put(one.path, name=one.name, kind=ArtifactKind.RPM, nevra=nevra, move=True, stop=context.stop)
        for one, nevra in packages
    )


def store_root(packages: Sequence[RootPackage], context: StepContext) -> tuple[Artifact, ...]:
    """Record the exact root: each package's NEVRA and header digest. Nothing for a root that was never made."""
    if not packages:
        return ()
    record = context.workdir / "root.json"
    record.write_bytes(wire.to_json([{"nevra": one.nevra, "digest": one.digest} for one in packages]))
    return (context.store.put(record, name="root.json", kind=ArtifactKind.RECORD, move=True, stop=context.stop),)


def store_provenance(work: Work[BuildInput], packages: Sequence[Artifact], context: StepContext) -> Artifact:
    """Record what the build was made of and what it made, by digest; docs/json.md has the form."""
    given = work.input
    document = {
        "format": 1,
        "attempt": work.attempt,
        "build": work.build_id,
        "package": work.package,
        "target": work.target.name,
        "target_sha256": work.target_sha256,
        "arch": given.arch,
        "srpm": {"name": given.srpm.name, "nevra": given.nevra, "sha256": given.srpm.sha256},
        "repositories": [{"name": one.name, "version": one.version, "url": one.url} for one in given.repositories],
        "packages": [{"name": one.name, "nevra": one.nevra, "sha256": one.sha256} for one in packages],
    }
    record = context.workdir / "provenance.json"
    record.write_bytes(wire.to_json(document))
    return context.store.put(record, name="provenance.json", kind=ArtifactKind.RECORD, move=True, stop=context.stop)


def _lies(one: Found, package: rpmfile.BinaryPackage, *, source: str, arch: str) -> Iterator[str]:
    if one.name != package.nevra.filename:
        yield f"says that it is {package.nevra}, which is another file name"
    if package.nevra.arch not in (arch, "noarch"):
        yield f"is for {package.nevra.arch}, and this was a build for {arch}"
    if not is_package_name(one.name):
        yield "has a name that no repository takes: letters, digits and ._+~^-, and first a letter or a digit"
    if package.source != source:
        yield f"says that it was built from {shown(package.source)!r}, and this was a build of {source!r}"
