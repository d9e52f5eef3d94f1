"""Bringing files to Pulp as content: looked up by digest first, sent in parallel, streamed, labelled.

Content is not in any repository yet after this; if the upload ends here, Pulp's own clean-up of orphans removes it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pulp_glue.common.context import PulpContext
from pulp_glue.common.exceptions import PulpException, PulpHTTPError
from pulp_glue.core.context import PulpUploadContext
from pulp_glue.file.context import PulpFileContentContext
from pulp_glue.rpm.context import PulpRpmPackageContext

from farm.errors import BadSource, RepositoryTrouble, disk_errors
from farm.formats.index import Given, IndexedPackage
from farm.formats.rpm.index import RpmIndex
from farm.model.nevra import Nevra
from farm.repositories.base import RepositoryFile, RepositoryPackage
from farm.repositories.checks import check_metadata
from farm.repositories.pulp.server import Context, PulpServer
from farm.repositories.pulp.words import NotThere

_AT_ONCE = 40  # digests in one look-up: a request's line has to stay below gunicorn's 4094 bytes
_UNIT_FIELDS = ["prn", "pkgId", "location_href", "epoch"]
_INDEXED = ("name", "epoch", "version", "release", "arch", "location_href", "pkgId", "size_package", "rpm_sourcerpm")
_INDEXED_AT_ONCE = 1000  # packages in one answer
_REFUSED = (400, 406, 413, 415, 422)
Item = TypeVar("Item", RepositoryPackage, RepositoryFile)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A content unit: Pulp's resource name for it, its path in a repository, and its epoch, which the path lacks."""

    prn: str
    path: str
    epoch: str = "0"

    @property
    def key(self) -> str:
        """A unit replaces another one of the same key."""
        return unit_key(self.path, self.epoch)


def unit_key(path: str, epoch: str | None) -> str:
    """No file name has a colon."""
    return path if epoch in (None, "", "0") else f"{path}:{epoch}"


def path_of(key: str) -> str:
    return key.partition(":")[0]


def check_epochs(keys: Collection[str]) -> None:
    """Pulp 3.39 for RPM keeps one package of a file name, and would drop the other epoch without a word. Raises
    BadSource."""
    for path, count in Counter(map(path_of, keys)).items():
        if count > 1:
            raise BadSource(
                f"{path!a} is there with another epoch, and Pulp keeps one package of a file name, which lacks the "
                "epoch: give yours another version or release, or publish to a directory, which keeps both"
            )


def _unit(one: Mapping[str, Any]) -> Unit:
    return Unit(prn=one["prn"], path=one["location_href"], epoch=one["epoch"] or "0")


def bring_packages(server: PulpServer, packages: Sequence[RepositoryPackage], context: Context) -> tuple[Unit, ...]:
    """The content units of RPMs, in the same order. Raises BadSource for one that cannot be published."""
    size_bytes = 0
    for package in packages:
        size_bytes += _check(package)
        check_metadata(size_bytes)
    found: dict[str, Unit] = {}
    for some in _portions(sorted({package.sha256 for package in packages})):
        wanted = {"pkgId__in": some, "fields": _UNIT_FIELDS}
        for one in PulpRpmPackageContext(context).list_iterator(wanted):
            found[one["pkgId"]] = _unit(one)
    missing = {package.sha256: package for package in packages if package.sha256 not in found}
    brought = _in_parallel(server, tuple(missing.values()), _send_package, context)
    found |= dict(zip(missing, brought, strict=True))
    for package in packages:
        if found[package.sha256].path != package.filename:
            raise BadSource(f"{package.filename!a} says in its header that it is {found[package.sha256].path!a}")
    return tuple(found[package.sha256] for package in packages)


def known_packages(sha256s: Sequence[str], context: Context) -> frozenset[str]:
    """The digests of which Pulp has a package, in a repository or not."""
    packages = PulpRpmPackageContext(context)
    return frozenset(
        one["pkgId"]
        for some in _portions(sha256s)
        for one in packages.list_iterator({"pkgId__in": some, "fields": ["pkgId"]})
    )


def packages_in(version_href: str, sha256s: Collection[str], context: Context) -> dict[str, Unit]:
    """The packages of these digests that a version has, by digest."""
    packages = PulpRpmPackageContext(context)
    fields = _UNIT_FIELDS
    return {
        one["pkgId"]: _unit(one)
        for some in _portions(sorted(sha256s))
        for one in packages.list_iterator({"repository_version": version_href, "pkgId__in": some, "fields": fields})
    }


def index_of(version_href: str, context: Context) -> tuple[IndexedPackage, ...]:
    """All packages of a version, sorted by file name."""
    found = PulpRpmPackageContext(context).list_iterator(
        {"repository_version": version_href, "fields": list(_INDEXED)}, batch_size=_INDEXED_AT_ONCE
    )
    return tuple(sorted((_indexed(one) for one in found), key=lambda one: one.filename))


def _indexed(one: Mapping[str, Any]) -> IndexedPackage:
    nevra = Nevra(
        name=one["name"],
        epoch=int(one["epoch"] or 0),
        version=one["version"],
        release=one["release"],
        arch=one["arch"],
    )
    return IndexedPackage(
        identity=str(nevra),
        filename=one["location_href"],
        sha256=one["pkgId"],
        size_bytes=one["size_package"],
        source=one["rpm_sourcerpm"] or "",
    )


def bring_files(server: PulpServer, files: Sequence[RepositoryFile], context: Context) -> tuple[Unit, ...]:
    """The content units of logs and records. Empty files are left out: Pulp takes none."""
    found: dict[tuple[str, str], Unit] = {}
    for some in _portions([file.name for file in files]):
        wanted = {"relative_path__in": some, "fields": ["prn", "sha256", "relative_path"]}
        for one in PulpFileContentContext(context).list_iterator(wanted):
            found[one["relative_path"], one["sha256"]] = Unit(prn=one["prn"], path=one["relative_path"])
    missing = {}
    for file in files:
        with disk_errors(RepositoryTrouble, f"{file.name!a} was not read"):
            if (file.name, file.sha256) not in found and file.path.stat().st_size:
                missing[file.name, file.sha256] = file
    brought = _in_parallel(server, tuple(missing.values()), _send_file, context)
    found |= dict(zip(missing, brought, strict=True))
    return tuple(found[key] for file in files if (key := (file.name, file.sha256)) in found)


def _check(package: RepositoryPackage) -> int:
    """The size of its metadata in bytes. A file that is no RPM, or does not fit into metadata, is not sent: Pulp
    answers it with an error 500."""
    if not package.path.is_file():
        raise RepositoryTrouble(f"{package.filename!a} is not there to be published: {package.path} is no file")
    filename = package.filename
    entry = RpmIndex().read(Given(path=package.path, sha256=package.sha256, location=filename, shown=repr(filename)))
    return sum(map(len, entry))


def _in_parallel(
    server: PulpServer, items: Sequence[Item], send: Callable[[Context, Item], Unit], context: Context
) -> tuple[Unit, ...]:
    """All results, or the first error, after which no further call begins."""

    def send_one(item: Item) -> Unit:
        return send(server.open(context.stop), item)

    futures: list[Future[Unit]] = [server.uploads.submit(send_one, item) for item in items]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        return tuple(future.result() for future in futures)
    finally:
        for future in futures:
            future.cancel()


def _send_package(context: Context, package: RepositoryPackage) -> Unit:
    content = _PackageContent(context)
    with _opened(package.path, package.filename) as file:
        sent = _sent(context, package.filename, lambda: content.send(file, package.labels))
    if sent["pkgId"] != package.sha256:
        raise _other(package.filename, package.sha256, sent["pkgId"])
    return _unit(sent)


def _send_file(context: Context, file: RepositoryFile) -> Unit:
    content = _FileContent(context)
    with _opened(file.path, file.name) as opened:
        sent = _sent(context, file.name, lambda: content.send(opened, file.name, file.labels))
    if sent["sha256"] != file.sha256:
        raise _other(file.name, file.sha256, sent["sha256"])
    return Unit(prn=sent["prn"], path=sent["relative_path"])


class _PackageContent(PulpRpmPackageContext):
    def send(self, file: Any, labels: Mapping[str, str]) -> Any:
        body: dict[str, Any] = {"pulp_labels": dict(labels)}
        self._prepare_upload(body, file, None)
        with _chunks_removed(self.pulp_ctx, body):
            return self.call("upload", body=body)


class _FileContent(PulpFileContentContext):
    """With the synchronous upload, which saves a task for each file and which pulp-glue has only for RPMs."""

    def send(self, file: Any, name: str, labels: Mapping[str, str]) -> Any:
        body: dict[str, Any] = {"relative_path": name, "pulp_labels": dict(labels)}
        self._prepare_upload(body, file, None)
        if "content_file_files_upload" not in self.pulp_ctx.api.operations:  # pulpcore before 3.88
            return self.create(body=body)
        with _chunks_removed(self.pulp_ctx, body):
            return self.call("upload", body=body)


@contextmanager
def _chunks_removed(context: PulpContext, body: Mapping[str, Any]) -> Iterator[None]:
    """The synchronous upload leaves them beside the content that it made of them (pulpcore 3.123)."""
    try:
        yield
    finally:
        if "upload" in body:
            # Pulp's clean-up of orphans removes the rest.
            with suppress(PulpException):
                PulpUploadContext(context, pulp_href=body["upload"]).delete()


def _sent(context: Context, shown: str, send: Callable[[], Any]) -> dict[str, Any]:
    try:
        sent: dict[str, Any] = send()
    except PulpHTTPError as error:
        if error.status_code in _REFUSED:
            raise BadSource(f"{shown!a} was not taken: {context.server.words(error)}") from error
        raise
    except NotThere as error:
        raise NotThere(f"{shown!a} was not taken: {error}{context.full_words()}") from error
    return sent


def _other(shown: str, wanted: str, sent: str) -> RepositoryTrouble:
    return RepositoryTrouble(f"{shown!a} got to Pulp with sha256 {sent}, not {wanted}; store it again")


def _opened(path: Path, shown: str) -> Any:
    with disk_errors(RepositoryTrouble, f"{shown!a} was not read"):
        return path.open("rb")


def _portions(texts: Sequence[str]) -> Iterator[list[str]]:
    """By number and by length, so that a request's line is taken by every server."""
    portion: list[str] = []
    for text in texts:
        if portion and (len(portion) == _AT_ONCE or sum(map(len, portion)) + len(text) > 64 * _AT_ONCE):
            yield portion
            portion = []
        portion.append(text)
    if portion:
        yield portion
