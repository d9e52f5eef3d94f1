"""The history of a commit: fetched into the mirror as far back as a reader needs it, and listed.

Owns the bounds: a build needs one tree, and history is fetched in few, growing portions. Knows no package format.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext
from workers.core.run import CommandFailed
from workers.core.text import shown
from workers.sources import git_blame
from workers.sources.git import Mirror

#: Numbers of commits from the tip that are fetched, one after the other, until the history suffices.
DEPTHS = (50, 500, 5000)
_LOG_MAX_BYTES = 16 * 2**20
_MESSAGE_CHARS = 32 * 1024
_FORMAT = "tformat:%H%n%P%n%ct%n%an%n%ae%n%B"
_FIELDS = 5
#: The year 9999, the last that calendars of Python know.
_LATEST = 253_402_300_799


@dataclass(frozen=True, kw_only=True)
class PastCommit:
    """One commit. `is_cut` if its parents exist, and are not fetched yet. `at` is in seconds since 1970."""

    id: str
    parents: tuple[str, ...]
    at: int
    author: str
    email: str
    message: str
    is_cut: bool


@dataclass
class History:
    """The history of the commit `tip`, empty until `more` is called."""

    mirror: Mirror
    tip: str
    context: StepContext
    why: str
    commits: dict[str, PastCommit] = field(default_factory=dict)
    _next: int = 0

    def more(self) -> None:
        """Fetch and list the next portion.

        Raises Ended if there is no more to have, or more than the bounds allow; trouble as `Mirror.commit`.
        """
        before = len(self.commits)
        if self._next == len(DEPTHS):
            words = f"{self.why} needs more than the last {DEPTHS[-1]} commits of {self.mirror.url.shown}"
            raise Ended(Outcome.OVER_LIMIT, f"{words}; change the version, or commit a file `changelog`, to start anew")
        depth, self._next = DEPTHS[self._next], self._next + 1
        self.context.log.note(f"fetching up to {depth} commits of {self.mirror.url.shown}, which {self.why} needs")
        with self.mirror.lock():  # another attempt may shorten the history of a commit that both have
            self._fetch(depth)
            cut = _lines(self.mirror.path / "shallow")
            listed = self.mirror.output(
                *("log", "-z", "--topo-order", f"--max-count={DEPTHS[-1] + 1}", "--encoding=UTF-8"),
                *("--no-show-signature", "--no-notes", "--no-mailmap", f"--format={_FORMAT}", self.tip, "--"),
                limit_bytes=_LOG_MAX_BYTES,
            )
        found = (self._parsed(entry, cut) for entry in listed.split(b"\0") if entry.strip())
        self.commits = {commit.id: commit for commit in found}
        if len(self.commits) == before and any(commit.is_cut for commit in self.commits.values()):
            what = f"{self.mirror.url.shown} is a shallow clone with {before} commits, and {self.why} needs more"
            raise Ended(Outcome.FAILED, f"{what}; run `git fetch --unshallow` there, or give the URL it came from")

    def _fetch(self, depth: int) -> None:
        try:
            self.mirror.fetch(f"--depth={depth}", f"+{self.tip}:refs/farm/{self.tip}")
        except CommandFailed as error:
            if not git_blame.UNSERVED_COMMIT.search(error.output.decode(errors="backslashreplace")):
                raise self.mirror.judged(error) from error
            self.mirror.fetch_all()

    def _parsed(self, entry: bytes, cut: set[str]) -> PastCommit:
        lines = entry.decode("utf-8", "replace").lstrip("\n").split("\n", _FIELDS)
        identity, parents, at = lines[0], tuple(lines[1].split()), lines[2]
        if not at.isdigit() or not 0 <= int(at[:15]) <= _LATEST:
            raise Ended(Outcome.FAILED, f"commit {shown(identity)} of {self.mirror.url.shown} has a bad date")
        return PastCommit(
            id=identity,
            parents=() if identity in cut else parents,
            at=int(at),
            author=lines[3],
            email=lines[4],
            message=(lines[5] if len(lines) > _FIELDS else "")[:_MESSAGE_CHARS],
            is_cut=identity in cut,
        )

    def objects(self, names: Iterable[str]) -> Mapping[str, tuple[str, int]]:
        """The id and size in bytes of each object, by its name in git, such as `commit:path`. One that does not exist
        is left out; no name may have a line end."""
        asked = list(names)
        listing = self.context.workdir / "object-names"
        listing.write_bytes("".join(f"{name}\n" for name in asked).encode("utf-8", "surrogateescape"))
        said = self.mirror.output("cat-file", "--batch-check", limit_bytes=_LOG_MAX_BYTES, given=listing)
        answers = said.decode("utf-8", "surrogateescape").split("\n")
        found = {}
        for name, answer in zip(asked, answers, strict=False):
            words = answer.split(" ")
            if len(words) == 3 and words[2].isdigit() and words[1] in ("blob", "tree"):
                found[name] = (words[0], int(words[2]))
        return found

    def blob(self, identity: str, *, limit_bytes: int) -> bytes:
        return self.mirror.output("cat-file", "blob", identity, limit_bytes=limit_bytes)


def _lines(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except FileNotFoundError:
        return set()
