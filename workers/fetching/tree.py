"""The files of one commit: what there is, and their content, read out of the mirror without a checkout.

Owns paths, symlinks, submodules and LFS pointers. Paths are of the repository, with `/`, bytes that are not UTF-8 as
surrogates. Does not know specs. Content comes from `git archive` into one tar in the work folder, read in place.
"""

import hashlib
import posixpath
import re
import tarfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from farm.errors import NetworkTrouble
from farm.model.outcome import Outcome
from workers.fetching.git import Commit, Mirror
from workers.fetching.giturl import of_submodule
from workers.run import CommandFailed
from workers.steps.context import Ended, StepContext, open_watched, over_disk
from workers.steps.names import shown

_LINKS_MAX = 16
_SUBMODULES_DEEP_MAX = 5
_PATHS_PER_COMMAND = 500
_PATH_BYTES_PER_COMMAND = 100_000
_POINTER_MAX_BYTES = 1024
_POINTER_START = b"version https://git-lfs.github.com/spec/v1\n"
_POINTER = re.compile(rb"oid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>[0-9]{1,15})\n")
_LFS_MISSING = re.compile(rb"missing object|[Oo]bject does not exist|Not Found")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._+/~-]+")
_GITMODULES_MAX_BYTES = 2**20
_SUBMODULE_PATH = re.compile(r"submodule\.(?P<name>.+)\.path", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One path of the tree; folders are not entries. `size_bytes` is 0 for a submodule."""

    path: str
    mode: str
    id: str
    size_bytes: int

    @property
    def is_link(self) -> bool:
        return self.mode == "120000"

    @property
    def is_submodule(self) -> bool:
        return self.mode == "160000"

    @property
    def is_executable(self) -> bool:
        return self.mode == "100755"


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file's bytes as a part of a larger file: `size_bytes` from `offset` on in `file`."""

    file: Path
    offset: int
    size_bytes: int

    def open(self, stop: threading.Event) -> IO[bytes]:
        """Stands at the first byte. Only `size_bytes` of it are this file's. Reading raises LeaseLost once `stop` is
        set."""
        stream = open_watched(self.file, stop)
        stream.seek(self.offset)
        return stream

    def read(self) -> bytes:
        with self.open(threading.Event()) as stream:
            return stream.read(self.size_bytes)


class Tree:
    """One commit of one mirror. `depth` counts the submodules above it."""

    def __init__(self, mirror: Mirror, commit: Commit, context: StepContext, *, depth: int = 0) -> None:
        self.mirror = mirror
        self.commit = commit
        self._context = context
        self._depth = depth
        self._taken: dict[str, Content] = {}
        self._links: dict[str, str] = {}
        self._archives = 0

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every file, link and submodule by its path, in git's order."""
        listed = self.mirror.output("ls-tree", "-r", "-z", "-l", "--full-tree", self.commit.id)
        found: dict[str, Entry] = {}
        for line in listed.split(b"\0")[:-1]:
            head, _, raw = line.partition(b"\t")
            mode, _, identity, size = head.decode().split()
            path = raw.decode("utf-8", "surrogateescape")
            found[path] = Entry(path=path, mode=mode, id=identity, size_bytes=0 if size == "-" else int(size))
        return found

    def children(self, folder: str) -> dict[str, Entry]:
        """The entries directly in a folder ("" is the root), by name."""
        start = f"{folder}/" if folder else ""
        return {
            path.removeprefix(start): entry
            for path, entry in self.entries.items()
            if path.startswith(start) and "/" not in path[len(start) :]
        }

    def has_folder(self, folder: str) -> bool:
        return not folder or any(path.startswith(f"{folder}/") for path in self.entries)

    def submodule_above(self, path: str) -> Entry | None:
        """The submodule that the path lies in."""
        parts = path.split("/")
        above = (self.entries.get("/".join(parts[:count])) for count in range(1, len(parts) + 1))
        return next((entry for entry in above if entry and entry.is_submodule), None)

    def file(self, path: str) -> Entry | None:
        """The regular file at a path, through symlinks within the tree; None if there is none.

        Raises Ended for a symlink that leaves the tree.
        """
        at = path
        for _ in range(_LINKS_MAX):
            entry = self.entries.get(at)
            if entry is None or entry.is_submodule:
                return None
            if not entry.is_link:
                return entry
            target = self.link_target(entry)
            at = posixpath.normpath(posixpath.join(posixpath.dirname(at), target))
            if target.startswith("/") or at.startswith("../") or at in ("..", "."):
                raise Ended(
                    Outcome.FAILED,
                    f"{shown(path)!r} is a symlink that leaves the tree, to {shown(target)!r}; commit the file itself",
                )
        raise Ended(Outcome.FAILED, f"{shown(path)!r} is a symlink that leads back to itself")

    def link_target(self, entry: Entry) -> str:
        """What a symlink says, cheaply once `take` had it."""
        if entry.path in self._links:
            return self._links[entry.path]
        return self.mirror.output("cat-file", "blob", entry.id, limit_bytes=2**16).decode("utf-8", "surrogateescape")

    def take(self, paths: Iterable[str]) -> dict[str, Content]:
        """The content of regular files, LFS pointers followed; symlinks among the paths are only learnt.

        Raises Ended for more than the step may write.
        """
        wanted = list(dict.fromkeys(paths))
        missing = [path for path in wanted if path not in self._taken and path not in self._links]
        self._check_size(sum(self.entries[path].size_bytes for path in missing))
        if missing:
            self._archive(self._arguments(missing), set(missing))
        self._follow_pointers(missing)
        return {path: self._taken[path] for path in wanted if path in self._taken}

    def submodule(self, entry: Entry) -> "Tree":
        """The tree of a submodule, fetched. Raises Ended if `.gitmodules` does not say where it is."""
        if self._depth >= _SUBMODULES_DEEP_MAX:
            raise Ended(Outcome.FAILED, f"submodules are nested more than {_SUBMODULES_DEEP_MAX} deep")
        url = self._submodule_urls.get(entry.path)
        if url is None:
            raise Ended(Outcome.FAILED, f".gitmodules has no url for the submodule {shown(entry.path)!r}")
        mirror = Mirror(of_submodule(self.mirror.url, url), self._context)
        self._context.log.note(f"submodule {shown(entry.path)}: {mirror.url.shown} at {entry.id}")
        return Tree(mirror, mirror.commit(entry.id), self._context, depth=self._depth + 1)

    # --- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _submodule_urls(self) -> dict[str, str]:
        entry = self.entries.get(".gitmodules")
        if entry is None or entry.is_link or entry.is_submodule:
            return {}
        # Git reads it, not we: it is git's configuration language, but no include is followed in a blob.
        listed = self.mirror.output(
            "config", "--blob", entry.id, "--no-includes", "-z", "--list", limit_bytes=_GITMODULES_MAX_BYTES
        )
        values: dict[str, str] = {}
        for item in listed.decode("utf-8", "surrogateescape").split("\0"):
            key, _, value = item.partition("\n")
            values.setdefault(key, value)
        found = ((_SUBMODULE_PATH.fullmatch(key), path) for key, path in values.items())
        pairs = ((path, values.get(f"submodule.{key['name']}.url")) for key, path in found if key)
        return {path: url for path, url in pairs if url}

    def _check_size(self, size_bytes: int) -> None:
        limit = self._context.limits.disk_bytes
        if size_bytes > limit:
            raise over_disk(
                f"the sources in {self.mirror.url.shown} have {size_bytes} bytes; the step's disk limit is {limit}"
            )

    def _arguments(self, paths: list[str]) -> list[str]:
        """What to give `git archive`: the paths, if they are few; else their folders; else nothing, for all."""
        if _is_few(paths):
            return paths
        folders = list(dict.fromkeys(posixpath.dirname(path) for path in paths))
        if "" not in folders and _is_few(folders):
            return folders
        return []

    def _archive(self, paths: list[str], wanted: set[str]) -> None:
        self._archives += 1
        name = f"tree-{self.mirror.url.key[:8]}-{self.commit.id[:12]}-{self._archives}.tar"
        file = self._context.workdir / name
        try:
            self.mirror.run("archive", "--format=tar", f"--output={file}", self.commit.id, "--", *paths)
        except CommandFailed as error:
            raise self.mirror.judged(error) from error
        with (
            open_watched(file, self._context.stop) as stream,
            tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as tar,
        ):
            for member in tar:
                if member.issym() and member.name in wanted:
                    self._links[member.name] = member.linkname
                elif member.isreg() and member.name in wanted:
                    content = Content(file=file, offset=member.offset_data, size_bytes=member.size)
                    self._taken[member.name] = content

    def _follow_pointers(self, paths: list[str]) -> None:
        files = {path: self._taken[path] for path in paths if path in self._taken}
        pointers = {path: found for path, content in files.items() if (found := _pointer(content))}
        if not pointers:
            return
        names = ", ".join(shown(path) for path in list(pointers)[:5])
        odd = [path for path in pointers if not _PLAIN_PATH.fullmatch(path)]
        if odd:
            raise Ended(Outcome.FAILED, f"{shown(odd[0])!r} is in Git LFS under a name the farm does not ask for")
        self._check_size(sum(size for _, size in pointers.values()))
        self._context.log.note(f"fetching from Git LFS: {names}")
        self._fetch_lfs(pointers, names)
        for path, (oid, size_bytes) in pointers.items():
            file = self.mirror.path / "lfs/objects" / oid[:2] / oid[2:4] / oid
            if not file.is_file() or file.stat().st_size != size_bytes or self._sha256(file) != oid:
                raise Ended(Outcome.FAILED, f"Git LFS of {self.mirror.url.shown} does not have {shown(path)} ({oid})")
            self._taken[path] = Content(file=file, offset=0, size_bytes=size_bytes)

    def _fetch_lfs(self, pointers: dict[str, tuple[str, int]], names: str) -> None:
        try:
            self.mirror.output("lfs", "version")
        except (Ended, NetworkTrouble) as error:
            raise Ended(
                Outcome.FAILED,
                f"{names}: kept in Git LFS, and this worker has no git-lfs; commit the file or use a lookaside",
            ) from error
        remote = ("-c", f"remote.origin.url={self.mirror.url.plain}")
        try:
            self.mirror.run(*remote, "lfs", "fetch", f"--include={','.join(pointers)}", "origin", self.commit.id)
        except CommandFailed as error:
            if not _LFS_MISSING.search(error.output):
                raise self.mirror.judged(error) from error

    def _sha256(self, file: Path) -> str:
        with open_watched(file, self._context.stop) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_few(paths: list[str]) -> bool:
    return len(paths) <= _PATHS_PER_COMMAND and sum(map(len, paths)) * 4 <= _PATH_BYTES_PER_COMMAND


def _pointer(content: Content) -> tuple[str, int] | None:
    """(sha256, size in bytes) that a Git LFS pointer stands for; None for any other file."""
    if not len(_POINTER_START) < content.size_bytes < _POINTER_MAX_BYTES:
        return None
    with content.open(threading.Event()) as stream:
        if stream.read(len(_POINTER_START)) != _POINTER_START:
            return None
        found = _POINTER.search(stream.read(content.size_bytes - len(_POINTER_START)))
    return (found["oid"].decode(), int(found["size"])) if found else None
