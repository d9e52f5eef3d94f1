"""Removes artifacts that are no longer needed.

Owns the rule by which a file is old, and the order of checks before it is removed. Safe while builds run: a file stays
if an unfinished build names it, if a kept version of a repository has it, or if it was stored after the oldest
unfinished attempt was sent.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from farm.artifacts.base import ArtifactStore, StoredFile
from farm.repositories import RepositoryBackend
from farm.store.retention import RetentionStore

#: Clocks of hosts differ, and a client stores a src.rpm before it asks for its build.
_MARGIN = timedelta(days=1)
_AT_ONCE = 500
#: No file is older. Times near the ends of Python's calendar have no neighbours, and no other zone.
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_SAY_EVERY = 10_000

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Collected:
    """`looked_at` files were examined, `old` of them are old enough, and `files` of those were removed, or would be.

    `audit_records` are the records of the audit log that were removed, or would be.
    """

    looked_at: int
    old: int
    files: int
    size_bytes: int
    audit_records: int = 0


@dataclass(kw_only=True)
class ArtifactCollector:
    """Keeps the artifacts of builds that ended after `since`."""

    store: RetentionStore
    artifacts: ArtifactStore
    repositories: RepositoryBackend
    since: datetime
    say: Say

    def collect(self, *, dry_run: bool, now: datetime | None = None) -> Collected:
        """Remove the files that are older than `since` and not needed. Safe to repeat, and to end at any time.

        Raises StoreTrouble, RepositoryTrouble and FarmNotRunning; files that were removed before stay removed.
        """
        oldest_work_at = self.store.oldest_work_at()
        now = now or datetime.now(UTC)
        self.since = min(max(self.since, _EARLIEST), now)
        before = min(self.since, oldest_work_at or now) - _MARGIN
        counts = [0, 0, 0, 0]
        waiting: list[StoredFile] = []
        for file in self.artifacts.listed():
            counts[0] += 1
            if counts[0] % _SAY_EVERY == 0:
                self.say(f"looked at {counts[0]} artifacts; {counts[2]} of them are not needed")
            if file.stored_at >= before:
                continue
            counts[1] += 1
            waiting.append(file)
            if len(waiting) == _AT_ONCE:
                self._portion(waiting, counts, dry_run=dry_run)
                waiting.clear()
        self._portion(waiting, counts, dry_run=dry_run)
        return Collected(looked_at=counts[0], old=counts[1], files=counts[2], size_bytes=counts[3])

    def _portion(self, files: Sequence[StoredFile], counts: list[int], *, dry_run: bool) -> None:
        needed = self._needed([file.sha256 for file in files])
        gone: Sequence[StoredFile] = [file for file in files if file.sha256 not in needed]
        if gone and not dry_run:
            gone = self.artifacts.remove(gone, unless=self._needed)
        counts[2] += len(gone)
        counts[3] += sum(file.size_bytes for file in gone)

    def _needed(self, sha256s: Collection[str]) -> frozenset[str]:
        by_builds = self.store.needed_artifacts(sha256s, since=self.since)
        rest = [sha256 for sha256 in sha256s if sha256 not in by_builds]
        return by_builds | self.repositories.keeps(rest) if rest else by_builds
