"""Checks of the names that callers give to a repository back end; all back ends share them.

Names come out of recipes and become parts of paths, URLs and metadata, so only harmless characters are allowed.
"""

import re
from collections.abc import Collection, Sequence

from farm.config import DIRECTORY, PULP
from farm.errors import BadRequest, BadSource, NotFound
from farm.formats.base import Format
from farm.formats.registry import format_of
from farm.model.project import PROJECT_NAME
from farm.model.target import METADATA_MAX_BYTES
from farm.repositories.base import RepositoryFile, RepositoryKind, RepositoryName, RepositoryPackage

#: The formats that Pulp has a content type for.
_PULP_FORMATS = ("rpm",)
#: The metadata of all packages that one build adds to a repository. The build host checks the target's limit, and may
#: lie.
ADD_METADATA_BYTES = METADATA_MAX_BYTES
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TARGET_MAX = 200
_WITH_ARCH = (RepositoryKind.BINARY, RepositoryKind.DEBUG)
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^-]*")
_PACKAGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~^-]*")
_FILENAME_MAX = 255  # the limit of Linux file systems
_PARTS_MAX = 8
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_name(name: RepositoryName) -> None:
    """Raises BadRequest for a project or target that cannot be part of a path or a URL, and for an arch that is missing
    or too many: each repository has one name."""
    if not PROJECT_NAME.fullmatch(name.project):
        raise BadRequest(f"{name.project[:80]!a} is no project's name, which has up to 64 of a-z, 0-9 and -")
    if not _TARGET.fullmatch(name.target) or len(name.target) > _TARGET_MAX:
        raise BadRequest(f"{name.target[:80]!a} cannot be part of a repository's path; rename the target")
    if (name.arch is not None) != (name.kind in _WITH_ARCH):
        has = f"arch {name.arch}" if name.arch else "no arch"
        raise BadRequest(f"a {name.kind} repository cannot have {has}: those of binary and debug packages have one")


def check_metadata(size_bytes: int) -> None:
    """Raises BadSource for packages with more metadata than one build may add to a repository."""
    if size_bytes > ADD_METADATA_BYTES:
        raise BadSource(
            f"the packages have more than {ADD_METADATA_BYTES // 2**20} MiB of metadata, which every user of the "
            "repository would download; give them fewer files, or shorter paths"
        )


def check_has_packages(name: RepositoryName) -> None:
    """Raises BadRequest as `check_name` does, and for a repository that takes no packages."""
    check_name(name)
    if name.kind is RepositoryKind.LOGS:
        raise BadRequest(f"{name.path} takes logs and records, not packages")


def check_copy(source: RepositoryName, into: RepositoryName, sha256s: Collection[str]) -> None:
    """Raises BadRequest for repositories of two formats or kinds, and for a digest that no package has."""
    check_removal(source, sha256s)
    check_has_packages(into)
    if source.format != into.format:
        raise BadRequest(f"{source.path} has {source.format} packages, and {into.path} takes {into.format} packages")
    if source.kind is not into.kind:
        raise BadRequest(f"{source.path} has {source.kind} packages, and {into.path} takes {into.kind} packages")


def check_removal(name: RepositoryName, sha256s: Collection[str]) -> None:
    """Raises BadRequest for a repository without packages, and for a digest that no package has."""
    check_has_packages(name)
    bad = next((sha256 for sha256 in sha256s if not _SHA256.fullmatch(sha256)), None)
    if bad is not None:
        raise BadRequest(f"{bad[:80]!a} is not a sha256, so {name.path} has no such package")


def missing_from(name: RepositoryName, version: int, sha256s: Collection[str]) -> NotFound:
    """The error for packages that the version does not have; at least one."""
    some = ", ".join(sorted(sha256s)[:3])
    more = f" and {len(sha256s) - 3} more" if len(sha256s) > 3 else ""
    return NotFound(f"version {version} of {name.path} has no package with sha256 {some}{more}")


def check_packages(name: RepositoryName, packages: Sequence[RepositoryPackage]) -> None:
    """Raises BadRequest for a repository that takes no packages; BadSource for names and digests that no package
    has, and for one name with two contents."""
    check_has_packages(name)
    suffix = form_of(name).suffix
    by_name: dict[str, str] = {}
    for package in packages:
        filename = package.filename
        if not is_package_name(filename, suffix):
            raise BadSource(
                f"{filename[:80]!a} is not the file name of a package: at most {_FILENAME_MAX} letters, digits and "
                f"._+~^-, with {suffix} at the end"
            )
        _check_digest(filename, package.sha256)
        if by_name.setdefault(filename, package.sha256) != package.sha256:
            raise BadSource(f"{filename!r} is given twice with different content; a repository has one of a name")


def is_package_name(filename: str, suffix: str) -> bool:
    """True for a name that a package's file may have in a repository of a format with this suffix."""
    is_harmless = _PACKAGE.fullmatch(filename) and len(filename) <= _FILENAME_MAX
    return bool(is_harmless) and filename.endswith(suffix) and len(filename) > len(suffix)


def check_format(back_end: str, name: str) -> None:
    """Raises BadRequest for a format of which the back end (Settings.repositories) cannot publish packages."""
    if back_end == PULP and name not in _PULP_FORMATS:
        raise BadRequest(
            f"packages of the format {name} cannot be published to Pulp, which has no content type for them; publish "
            f"them to a directory (FARM_REPOSITORIES={DIRECTORY})"
        )


def form_of(name: RepositoryName) -> Format:
    """The format of the repository's packages. Raises BadRequest for one that is not known."""
    try:
        return format_of(name.format)
    except ValueError as error:
        raise BadRequest(f"{name.path} cannot be used: {error}") from error


def check_files(name: RepositoryName, files: Sequence[RepositoryFile]) -> None:
    """Raises BadRequest for a repository that takes no plain files; BadSource for names that could lead elsewhere,
    and for one name with two contents."""
    check_name(name)
    if name.kind is not RepositoryKind.LOGS:
        raise BadRequest(f"{name.path} takes packages, not logs and records")
    by_name: dict[str, str] = {}
    for file in files:
        if not is_file_name(file.name):
            raise BadSource(
                f"{file.name[:80]!a} is not a log's name: parts of letters, digits and ._+~^-, with '/' in between"
            )
        _check_digest(file.name, file.sha256)
        if by_name.setdefault(file.name, file.sha256) != file.sha256:
            raise BadSource(f"{file.name!r} is given twice with different content; a repository has one of a name")


def is_file_name(name: str) -> bool:
    """True for a name that a log or record may have: `12/build.x86_64.1/root.json`."""
    parts = name.split("/")
    is_harmless = all(_PART.fullmatch(part) and len(part) <= _FILENAME_MAX for part in parts)
    return is_harmless and len(parts) <= _PARTS_MAX


def _check_digest(name: str, sha256: str) -> None:
    if not _SHA256.fullmatch(sha256):
        raise BadSource(f"{name!r} is given with {sha256[:80]!a}, which is not a sha256")
