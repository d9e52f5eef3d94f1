"""Makes tars with the same bytes for the same commit, on any machine, in any run. Knows nothing of git or specs."""

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from farm.errors import LeaseLost, Trouble, disk_errors
from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext, over_disk
from workers.core.run import CommandFailed, Ending, run
from workers.sources.content import Content
from workers.sources.tree import Tree

#: The compressors by a file's suffix. Tools, not Python's modules: zlib's output differs between its implementations,
#: GNU gzip's does not. One thread, because the number of threads changes the output of xz and zstd.
_COMPRESSORS: dict[str, tuple[str, ...]] = {
    ".gz": ("gzip", "-n", "-6"),
    ".tgz": ("gzip", "-n", "-6"),
    ".bz2": ("bzip2", "-9"),
    ".tbz2": ("bzip2", "-9"),
    ".xz": ("xz", "-6", "-T1"),
    ".txz": ("xz", "-6", "-T1"),
    ".zst": ("zstd", "-q", "--rm", "--single-thread", "-9"),
}
_MADE = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz"}


@dataclass(frozen=True, kw_only=True)
class Member:
    """A regular file, or a symlink if `link` is set."""

    name: str
    content: Content | None = None
    link: str | None = None
    is_executable: bool = False


def write(path: Path, members: Iterable[Member], *, at: int, context: StepContext) -> None:
    """Write an uncompressed tar: sorted by name, owner 0:0, every mtime `at` (seconds since 1970).

    Raises DiskFull and Trouble for errors of the file system, LeaseLost when the step is stopped.
    """
    ordered = sorted(members, key=lambda member: member.name.encode("utf-8", "surrogateescape"))
    with (
        disk_errors(Trouble, f"{path.name} could not be written"),
        tarfile.open(path, "w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") as tar,
    ):
        for member in ordered:
            if context.stop.is_set():
                raise LeaseLost(f"stopped while {path.name} was written")
            _add(tar, member, at, context)


def _add(tar: tarfile.TarFile, member: Member, at: int, context: StepContext) -> None:
    info = tarfile.TarInfo(member.name)
    info.mtime = at
    info.mode = 0o755 if member.is_executable else 0o644
    if member.link is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, member.link, 0o777
        tar.addfile(info)
    elif member.content is not None:
        info.size = member.content.size_bytes
        with member.content.open(context.stop) as stream:
            tar.addfile(info, stream)


def of_tree(tree: Tree, filename: str, prefix: str, context: StepContext) -> Path:
    """The tarball of a whole commit, submodules included, below `prefix`, compressed by its name's suffix.

    Symlinks stay symlinks: only the build root unpacks them. Raises Ended for more than the step may write.
    """
    folder = context.workdir / "tarball"
    folder.mkdir(exist_ok=True)
    members = list(_members(tree, prefix))
    size_bytes = sum(member.content.size_bytes for member in members if member.content)
    if size_bytes > context.limits.disk_bytes:
        limit = context.limits.disk_bytes
        raise over_disk(f"{filename} would hold {size_bytes} bytes; the step's disk limit is {limit}")
    ending = next((ending for ending in _COMPRESSORS if filename.endswith(ending)), None)
    plain = folder / (filename if ending is None else "tree.tar")
    write(plain, members, at=tree.commit.at, context=context)
    if ending is None:
        tree.spend_bytes(plain.stat().st_size)
        return plain
    try:
        run(
            [*_COMPRESSORS[ending], plain.name],
            cwd=folder,
            timeout_s=None,
            deadline=context.deadline,
            log=context.log,
            stop=context.stop,
        )
    except CommandFailed as error:
        if error.completed.ending is Ending.TIMED_OUT:
            raise Ended(Outcome.TIMED_OUT, f"compressing {filename} took longer than the step's time limit") from error
        raise
    made = (folder / f"tree.tar{_MADE.get(ending, ending)}").rename(folder / filename)
    tree.spend_bytes(made.stat().st_size)
    return made


def _members(tree: Tree, prefix: str) -> Iterable[Member]:
    files = [entry for entry in tree.entries.values() if not entry.is_link and not entry.is_submodule]
    contents = tree.take_all()
    for entry in files:
        yield Member(name=f"{prefix}/{entry.path}", content=contents[entry.path], is_executable=entry.is_executable)
    for entry in tree.entries.values():
        if entry.is_link:
            yield Member(name=f"{prefix}/{entry.path}", link=tree.link_target(entry))
        elif entry.is_submodule:
            yield from _members(tree.submodule(entry), f"{prefix}/{entry.path}")
