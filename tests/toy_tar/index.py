"""The index of a repository of `tar` packages: the file `index/PACKAGES`, a JSON document per package and line."""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from farm.errors import BadSource, RepositoryTrouble
from farm.formats.index import Edition, Entry, Given, Group, IndexedPackage

TOP = "index/PACKAGES"


class TarIndex:
    """An `Index` of one list, which is the top file itself."""

    parts = ("list",)
    top = TOP
    tool = ""

    def read(self, given: Given) -> Entry:
        with given.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != given.sha256:
            raise RepositoryTrouble(f"{given.shown} has sha256 {digest}, not {given.sha256}; store it again")
        try:
            with tarfile.open(given.path) as tar:
                tar.getmembers()
        except (tarfile.TarError, OSError) as error:
            raise BadSource(f"{given.shown} is not a tar") from error
        size_bytes = given.path.stat().st_size
        about = {"location": given.location, "sha256": digest, "size": size_bytes}
        return (json.dumps(about).encode() + b"\n",)

    def edition(self, entry: Entry) -> str:
        return ""

    def group(self, entries: Iterable[Entry]) -> Group:
        lines = b"".join(entry[0] for entry in entries)
        return Group(members=(lines,), open_sizes_bytes=(len(lines),))

    def write(self, folder: Path, groups: Iterable[Group], edition: Edition) -> None:
        (folder / Path(TOP).name).write_bytes(b"".join(group.members[0] for group in groups))

    def packages(self, folder: Path) -> tuple[IndexedPackage, ...]:
        try:
            lines = list(read_lines(folder / Path(TOP).name))
        except (OSError, ValueError) as error:
            raise RepositoryTrouble(f"the index in {folder} cannot be read: {error}") from error
        found = (_indexed(Path(line["location"]), line) for line in lines)
        return tuple(sorted(found, key=lambda one: one.filename))

    def size_bytes(self, top: bytes) -> int:
        return len(top)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines():
        yield json.loads(line)


def _indexed(location: Path, line: dict[str, Any]) -> IndexedPackage:
    return IndexedPackage(
        identity=location.stem, filename=location.name, sha256=line["sha256"], size_bytes=line["size"], source=""
    )


def listed(repository: Path) -> dict[str, Path]:
    """The packages' files of a repository, by name, as a package manager finds them: the later line wins."""
    lines = read_lines(repository / TOP)
    return {path.name.split("_")[0]: path for line in lines if (path := repository / line["location"])}
