"""The files of one commit: lists them and reads their content from the mirror, without a checkout.

Owns paths, symlinks, submodules and LFS pointers. Paths are the repository's, with `/`, and with surrogates for bytes
that are not UTF-8. Does not know specs. `git archive` writes content into one tar in the work folder, which is read in
place.
"""

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext, open_watched, over_disk
from workers.core.run import CommandFailed
from workers.core.text import shown
from workers.sources import exported, lfs
from workers.sources.content import Content
from workers.sources.git import Commit, Mirror
from workers.sources.giturl import of_submodule
from workers.sources.untar import members, open_tar

_LINKS_MAX = 16
_SUBMODULES_DEEP_MAX = 5
_PATHS_PER_COMMAND = 500
_PATH_BYTES_PER_COMMAND = 100_000
_PIECES_MAX = 4  # git compares each path of a command with each entry of the tree
_GITMODULES_MAX_BYTES = 2**20
_PATH_MAX_BYTES = 4096  # Linux's limit
_ATTRIBUTES_MAX_BYTES = 2**20
_NO_PARTS = frozenset(("", ".", ".."))
_FOLDERS_DEEP_MAX = 64
_WHOLE_MAX_BYTES = 32 * 2**20
_FOLDER_MAX_BYTES = 32 * 2**20
_SUBMODULE_PATH = re.compile(r"submodule\.(?P<name>.+)\.path", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One path of the tree. `size_bytes` is 0 for a submodule."""

    path: str
    mode: str
    id: str
    size_bytes: int

    @property
    def is_link(self) -> bool:
        return self.mode == "120000"

    @property
    def is_folder(self) -> bool:
        return self.mode == "040000"

    @property
    def is_submodule(self) -> bool:
        return self.mode == "160000"

    @property
    def is_executable(self) -> bool:
        return self.mode == "100755"


@dataclass
class Budget:
    """The limits of all trees of one step, and the bytes that were written from them: a hostile tree is small on disk,
    but its list is endless, and so are the names under which a recipe may ask for its files."""

    entries: int = 200_000
    lookups: int = 5_000
    submodules: int = 200
    written_bytes: int = field(default=0, init=False)

    def spend(self, what: str, count: int, where: str) -> None:
        """Raises Ended when nothing is left of `what`, the name of one of the fields."""
        left = getattr(self, what) - count
        setattr(self, what, left)
        if left < 0:
            most = getattr(type(self), what)
            raise Ended(Outcome.OVER_LIMIT, f"{where} has more than {most} {what} to look at; no package needs so many")


class Tree:
    """One commit of one mirror. `depth` counts the submodules above it, whose trees share the budget."""

    def __init__(
        self, mirror: Mirror, commit: Commit, context: StepContext, *, depth: int = 0, budget: Budget | None = None
    ) -> None:
        self.mirror = mirror
        self.commit = commit
        self._context = context
        self._depth = depth
        self._budget = budget or Budget()
        self._listings: dict[str, dict[str, Entry]] = {}
        self._taken: dict[str, Content] = {}
        self._links: dict[str, str] = {}
        self._archives = 0
        self._attributes: dict[str, bool] = {}

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every file, link and submodule by its path, in git's order. Expensive: it lists the whole tree.

        Raises Ended for more than the budget has.
        """
        found = self._list("-r", self.commit.id, limit_bytes=_WHOLE_MAX_BYTES)
        return {entry.path: entry for entry in found}

    def _list(self, *args: str, limit_bytes: int, folder: str = "") -> list[Entry]:
        """The output of `git ls-tree`, checked against the budget."""
        self._budget.spend("lookups", 1, self.mirror.url.shown)
        listed = self.mirror.output("ls-tree", "-z", "-l", *args, limit_bytes=limit_bytes)
        self._budget.spend("entries", listed.count(b"\0"), self.mirror.url.shown)
        found = []
        for line in listed.split(b"\0")[:-1]:
            head, _, raw = line.partition(b"\t")
            mode, _, identity, size = head.decode().split()
            name = raw.decode("utf-8", "surrogateescape")
            # git checks neither when it fetches; the one would be another entry's path, the others leave the tree.
            if ("/" in name and "-r" not in args) or not _NO_PARTS.isdisjoint(name.split("/")):
                raise Ended(Outcome.FAILED, f"the tree has an entry called {shown(name)!r}, which git forbids")
            path = f"{folder}/{name}" if folder else name
            if size != "-" and not size.isdecimal():
                raise Ended(Outcome.FAILED, f"{self.mirror.url.shown} lacks the content of {shown(path)!r}: {identity}")
            found.append(Entry(path=path, mode=mode, id=identity, size_bytes=0 if size == "-" else int(size)))
        return found

    def _listing(self, folder: str) -> dict[str, Entry]:
        """The entries directly in a folder, folders too, by name; empty if it is not a folder."""
        at, identity = "", self.commit.id
        parts = folder.split("/") if folder else []
        if len(parts) > _FOLDERS_DEEP_MAX:
            raise Ended(Outcome.FAILED, f"{shown(folder)!r} is more than {_FOLDERS_DEEP_MAX} folders deep")
        for part in (*parts, None):
            if at not in self._listings:
                listed = self._list(identity, limit_bytes=_FOLDER_MAX_BYTES, folder=at)
                self._listings[at] = {posixpath.basename(entry.path): entry for entry in listed}
            if part is None:
                break
            entry = self._listings[at].get(part)
            if entry is None or not entry.is_folder:
                return {}
            at, identity = entry.path, entry.id
        return self._listings[at]

    def entry(self, path: str) -> Entry | None:
        """The file, link or submodule at a path."""
        folder, name = posixpath.split(path)
        found = self._listing(folder).get(name)
        return None if found is None or found.is_folder else found

    def children(self, folder: str) -> dict[str, Entry]:
        """The entries directly in a folder ("" is the root), by name."""
        return {name: entry for name, entry in self._listing(folder).items() if not entry.is_folder}

    def has_folder(self, folder: str) -> bool:
        above, name = posixpath.split(folder)
        found = self._listing(above).get(name)
        return not folder or (found is not None and found.is_folder)

    def submodule_above(self, path: str) -> Entry | None:
        """The submodule that the path is in."""
        parts = path.split("/")[:_FOLDERS_DEEP_MAX]
        above = (self.entry("/".join(parts[:count])) for count in range(1, len(parts) + 1))
        return next((entry for entry in above if entry and entry.is_submodule), None)

    def file(self, path: str) -> Entry | None:
        """The regular file at a path, through symlinks within the tree; None if there is none.

        Raises Ended for a symlink that leaves the tree.
        """
        at = path
        for _ in range(_LINKS_MAX):
            entry = self.entry(at)
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
        """The target of a symlink; cheap once `take` has had it."""
        if entry.path in self._links:
            return self._links[entry.path]
        self._budget.spend("lookups", 1, self.mirror.url.shown)
        return self.mirror.output("cat-file", "blob", entry.id, limit_bytes=2**16).decode("utf-8", "surrogateescape")

    def take(self, paths: Iterable[str]) -> dict[str, Content]:
        """The content of regular files, with LFS pointers followed; of symlinks only the targets are read.

        Raises Ended for more than the step may write.
        """
        wanted = list(dict.fromkeys(paths))
        missing = [path for path in wanted if path not in self._taken and path not in self._links]
        found = [entry for path in missing if (entry := self.entry(path))]
        sizes = {entry.path: entry.size_bytes for entry in found}
        self.spend_bytes(sum(sizes.values()))
        pieces = list(_in_pieces(list(sizes)))
        if len(pieces) > _PIECES_MAX and not self._fills_in(sizes):
            self._archive_many([entry for entry in found if not entry.is_submodule])
        else:
            for few in pieces:
                self._archive(few, set(few), sum(sizes[path] for path in few))
        self._follow_pointers(missing)
        return {path: self._taken[path] for path in wanted if path in self._taken}

    def take_all(self) -> dict[str, Content]:
        """The content of every regular file, as from `take`."""
        wanted = [path for path, entry in self.entries.items() if not entry.is_submodule]
        if any(path not in self._taken and path not in self._links for path in wanted):
            size_bytes = sum(entry.size_bytes for entry in self.entries.values())
            self.spend_bytes(size_bytes)
            self._archive([], set(wanted), size_bytes)
            self._follow_pointers(wanted)
        return {path: self._taken[path] for path in wanted if path in self._taken}

    def submodule(self, entry: Entry) -> "Tree":
        """The tree of a submodule, fetched. Raises Ended if `.gitmodules` does not have its URL."""
        if self._depth >= _SUBMODULES_DEEP_MAX:
            raise Ended(Outcome.FAILED, f"submodules are nested more than {_SUBMODULES_DEEP_MAX} deep")
        self._budget.spend("submodules", 1, self.mirror.url.shown)
        url = self._submodule_urls.get(entry.path)
        if url is None:
            raise Ended(Outcome.FAILED, f".gitmodules has no url for the submodule {shown(entry.path)!r}")
        mirror = Mirror(of_submodule(self.mirror.url, url), self._context, self.mirror.gateway)
        self._context.log.note(f"submodule {shown(entry.path)}: {mirror.url.shown} at {entry.id}")
        return Tree(mirror, mirror.commit(entry.id), self._context, depth=self._depth + 1, budget=self._budget)

    def spend_bytes(self, size_bytes: int) -> None:
        """Count bytes that are written next. Raises Ended for more than the step may write from its trees in all."""
        self._budget.written_bytes += size_bytes
        limit = self._context.limits.disk_bytes
        if self._budget.written_bytes > limit:
            written = self._budget.written_bytes
            raise over_disk(
                f"the sources in {self.mirror.url.shown} have {written} bytes; the step's disk limit is {limit}"
            )

    # --- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _submodule_urls(self) -> dict[str, str]:
        entry = self.entry(".gitmodules")
        if entry is None or entry.is_link or entry.is_submodule:
            return {}
        # Git reads the file, which is in git's configuration language. In a blob git follows no include.
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

    def _archive(self, paths: list[str], wanted: set[str], counted_bytes: int) -> None:
        """Take the wanted files from an archive of the paths, or of the whole tree if there are no paths. So many bytes
        of it have been counted."""
        file = self._new_file("tar")
        try:
            if self._fills_in(wanted):
                exported.archive(self.mirror, self.commit, paths, into=file, context=self._context)
            else:
                # Without --worktree-attributes git reads the whole tree into an index first, for the tree's attributes.
                options = ("--worktree-attributes", "--format=tar", f"--output={file}")
                self.mirror.run("archive", *options, self.commit.id, "--", *paths)
        except CommandFailed as error:
            raise self.mirror.judged(error) from error
        self._read(file, {path: path for path in wanted}, counted_bytes)

    def _archive_many(self, entries: list[Entry]) -> None:
        """Take any number of files in one pass: from a tree of their own, where numbers are their names."""
        named = {f"{number:08}": entry for number, entry in enumerate(entries)}
        listed = self._new_file("entries")
        lines = (f"{entry.mode} blob {entry.id}\t{name}\0" for name, entry in named.items())
        listed.write_text("".join(lines), encoding="ascii")
        made = self.mirror.output("mktree", "-z", given=listed).decode().strip()
        file = self._new_file("tar")
        try:
            self.mirror.run("archive", "--worktree-attributes", "--format=tar", f"--output={file}", made)
        except CommandFailed as error:
            raise self.mirror.judged(error) from error
        paths = {name: entry.path for name, entry in named.items()}
        self._read(file, paths, sum(entry.size_bytes for entry in entries))

    def _new_file(self, ending: str) -> Path:
        self._archives += 1
        name = f"tree-{self.mirror.url.key[:8]}-{self.commit.id[:12]}-{self._archives}.{ending}"
        return self._context.workdir / name

    def _read(self, file: Path, paths: Mapping[str, str], counted_bytes: int) -> None:
        """Keep the files and links of an archive that are in `paths`: names there to paths of the tree."""
        with (
            open_watched(file, self._context.stop) as stream,
            open_tar(stream) as tar,
        ):
            for member in members(tar):
                path = paths.get(member.name)
                if path is not None and member.issym():
                    self._links[path] = member.linkname
                elif path is not None and member.isreg():
                    self._taken[path] = Content(file=file, offset=member.offset_data, size_bytes=member.size)
        # Headers, filled-in words, and in a tree that is not well-formed a folder that has the name of a file.
        self.spend_bytes(max(0, file.stat().st_size - counted_bytes))

    def _fills_in(self, paths: Iterable[str]) -> bool:
        """Whether a file of attributes above one of the paths names export-subst."""
        for place in exported.attribute_files(paths):
            folder, name = posixpath.split(place)
            whole = self.__dict__.get("entries")
            entry = whole.get(place) if whole is not None else self._listing(folder).get(name)
            if entry is None or not entry.mode.startswith("100") or entry.size_bytes > _ATTRIBUTES_MAX_BYTES:
                continue  # git itself reads no link and no larger file
            if entry.id not in self._attributes:
                self._budget.spend("lookups", 1, self.mirror.url.shown)
                content = self.mirror.output("cat-file", "blob", entry.id, limit_bytes=_ATTRIBUTES_MAX_BYTES)
                self._attributes[entry.id] = exported.asks(content)
            if self._attributes[entry.id]:
                return True
        return False

    def _follow_pointers(self, paths: list[str]) -> None:
        taken = {path: self._taken[path] for path in paths if path in self._taken}
        pointers = {path: one for path, content in taken.items() if (one := lfs.pointer(content))}
        if pointers:
            self.spend_bytes(sum(one.size_bytes for one in pointers.values()))
            blobs = {path: self._blob(path) for path in pointers}
            self._taken.update(lfs.fetch(self.mirror, pointers, blobs, self._context))

    def _blob(self, path: str) -> str:
        whole = self.__dict__.get("entries")  # costs nothing if it was listed already
        found = whole.get(path) if whole is not None else self.entry(path)
        return found.id if found else ""


def _in_pieces(paths: list[str]) -> Iterator[list[str]]:
    """As many paths at a time as fit on a command line. Raises Ended for a path that does not fit alone."""
    piece: list[str] = []
    size = 0
    for path in paths:
        length = len(os.fsencode(path))
        if length > _PATH_MAX_BYTES:
            raise Ended(Outcome.FAILED, f"the path {shown(path)!r} has {length} bytes; no file can have so long a path")
        if len(piece) == _PATHS_PER_COMMAND or size + length > _PATH_BYTES_PER_COMMAND:
            yield piece
            piece, size = [], 0
        piece.append(path)
        size += length
    if piece:
        yield piece
