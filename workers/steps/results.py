"""What a recipe left behind, as the farm takes it: each file checked for what it is before anything is believed of it.

Owns the checks and the storing, of logs too. Everything it looks at is hostile: names, types, links and contents.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm import wire
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.outcome import Outcome
from farm.model.work import BuildInput, Work
from farm.repositories.checks import is_package_name
from workers.core.context import Ended, StepContext, over_disk
from workers.core.text import shown
from workers.formats.rpm import rpmfile
from workers.formats.rpm.engine import RootPackage
from workers.formats.rpm.publishable import check_publishable

MAX_FILES = 5000
_MAX_FOLDERS_DEEP = 8  # rpmbuild makes one, for the arch
_STAMPS_AFTER_MS = 1000
_MAX_STAMPS = 20_000


@dataclass(frozen=True, kw_only=True)
class Found:
    """A result that is a regular file of the recipe's own, with no other name anywhere."""

    path: Path
    name: str


def collect(results: Path, suffix: str, *, limit_bytes: int) -> tuple[Found, ...]:
    """The files whose names end so, by name, whatever folder they are in.

    Raises Ended (failed) for anything there that a build has no business leaving: links, devices, other files,
    names that no package has, the same name twice, too many of them, or more than `limit_bytes` in all as they are
    read, holes included. Nothing is followed or opened.
    """
    found: dict[str, Found] = {}
    size_bytes = 0
    for number, entry in enumerate(_walk(results)):
        if number >= MAX_FILES:
            raise Ended(Outcome.FAILED, f"the build left more than {MAX_FILES} files among its results")
        if entry.is_dir(follow_symlinks=False):
            continue
        problem = _problem(entry, suffix) or ("another folder has a file of that name" if entry.name in found else None)
        if problem:
            raise Ended(
                Outcome.FAILED, f"the build left {shown(os.fsencode(entry.name))!r} among its results: {problem}"
            )
        size_bytes += entry.stat(follow_symlinks=False).st_size
        if size_bytes > limit_bytes:
            raise over_disk(f"the build's results are larger than its disk limit of {limit_bytes} bytes")
        found[entry.name] = Found(path=Path(entry.path), name=entry.name)
    return tuple(found[name] for name in sorted(found))


def store_source(found: Sequence[Found], context: StepContext) -> tuple[Artifact, str]:
    """Store the one source package; the artifact and its NEVRA. Raises Ended when there is not exactly one."""
    if len(found) != 1:
        names = ", ".join(shown(one.name) for one in found) or "none"
        raise Ended(Outcome.FAILED, f"rpmbuild is to make one source package, and made {names}")
    try:
        nevra = rpmfile.check_source(found[0].path, stop=context.stop).nevra
    except rpmfile.BadRpm as error:
        raise Ended(Outcome.FAILED, f"the source package {shown(found[0].name)!r} {error}") from error
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
        "arch": given.arch,
        "srpm": {"name": given.srpm.name, "nevra": given.nevra, "sha256": given.srpm.sha256},
        "repositories": [{"name": one.name, "version": one.version, "url": one.url} for one in given.repositories],
        "packages": [{"name": one.name, "nevra": one.nevra, "sha256": one.sha256} for one in packages],
    }
    record = context.workdir / "provenance.json"
    record.write_bytes(wire.to_json(document))
    return context.store.put(record, name="provenance.json", kind=ArtifactKind.RECORD, move=True, stop=context.stop)


def store_log(context: StepContext, name: str) -> tuple[Artifact, ...]:
    """Close the log and store it; with it, when it took more than a second, the time of its lines.

    The times are a JSON list of [milliseconds since the start, byte offset], ascending.
    """
    context.log.close()
    log = context.store.put(context.log.path, name=name, kind=ArtifactKind.LOG, stop=context.stop)
    stamps = context.log.stamps
    if not stamps or stamps[-1][0] < _STAMPS_AFTER_MS:
        return (log,)
    times = context.log.path.with_name("times")
    times.write_bytes(wire.to_json(stamps[:: len(stamps) // _MAX_STAMPS + 1]))
    return log, context.store.put(
        times, name=f"{name}.times.json", kind=ArtifactKind.RECORD, move=True, stop=context.stop
    )


def _walk(folder: Path, deep: int = 0) -> Iterator[os.DirEntry[str]]:
    """Files, folders and what else is there; each folder before what is in it."""
    if deep > _MAX_FOLDERS_DEEP:
        raise Ended(Outcome.FAILED, f"the build left folders among its results that are {deep} deep")
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), deep + 1)


def _problem(entry: os.DirEntry[str], suffix: str) -> str | None:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'no regular file')}"
    if status.st_nlink != 1:
        return "it is a hard link to another file"
    if status.st_size > _HOLES_BYTES and status.st_blocks * _BLOCK_BYTES * _HOLES_FACTOR < status.st_size:
        return f"it has {status.st_size} bytes, nearly all of them holes"
    if not entry.name.endswith(suffix) or shown(entry.name, limit=255) != entry.name or not entry.name.isascii():
        return f"only files named *{suffix} belong there"
    return None


# Some file systems compress. Reading holes takes time that nobody's disk limits.
_HOLES_BYTES, _HOLES_FACTOR, _BLOCK_BYTES = 64 * 2**20, 64, 512
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def _lies(one: Found, package: rpmfile.BinaryPackage, *, source: str, arch: str) -> Iterator[str]:
    if one.name != package.nevra.filename:
        yield f"says that it is {package.nevra}, which is another file name"
    if package.nevra.arch not in (arch, "noarch"):
        yield f"is for {package.nevra.arch}, and this was a build for {arch}"
    if not is_package_name(one.name):
        yield "has a name that no repository takes: letters, digits and ._+~^-, and first a letter or a digit"
    if package.source != source:
        yield f"says that it was built from {shown(package.source)!r}, and this was a build of {source!r}"
