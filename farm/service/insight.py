"""Questions that pages ask and no other client does: the past of a package, roots, parts of logs for a viewer."""

import threading
from collections import OrderedDict
from dataclasses import replace
from functools import cached_property

from farm.errors import FarmError
from farm.formats.index import IndexedPackage
from farm.model.actor import Actor
from farm.model.arch import Arch
from farm.model.build import Build
from farm.model.history import BuildQuery, StepRun
from farm.model.outcome import Outcome, Status
from farm.repositories import RepositoryName
from farm.service.connections import Connections
from farm.service.history import ESTIMATED_FROM, ArchOutcomes, Estimate, estimate, outcomes_of
from farm.service.log import LogPlace
from farm.service.log_window import LineIndex, LiveLog, LogText, StoredLog
from farm.service.places import Places
from farm.service.root_record import RootDifference, read_root, root_changes, root_records
from farm.targets.load import find_target

#: The finished builds of which the outcomes are counted.
COUNTED = 100
_INDEXES_MAX = 8


class Insight:
    """Safe to use from several threads. The same errors as of FarmService's questions."""

    def __init__(self, connections: Connections, places: Places) -> None:
        self._on = connections
        self._places = places
        self._indexes: OrderedDict[tuple[str, int], tuple[IndexedPackage, ...]] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def _index(self) -> LineIndex:
        return LineIndex(self._on.artifacts)

    # --- builds -------------------------------------------------------------------------------------------------

    def find_builds(
        self, viewer: Actor | None, wanted: BuildQuery, *, limit: int, before: int | None
    ) -> tuple[tuple[Build, ...], int | None]:
        """The newest builds that match and that the viewer sees, with their steps, and the `before` of the next
        page."""
        hidden = self._places.hidden_from(viewer)
        if wanted == replace(wanted, package=None, owner=None, batch=None, project=None):
            builds = self._on.store.builds(
                status=wanted.status,
                outcome=wanted.outcome,
                target=wanted.target,
                limit=limit,
                before=before,
                hidden=hidden,
            )
            return builds, builds[-1].id if len(builds) == limit else None
        found = self._on.store.find_builds(wanted, limit=limit, before=before, hidden=hidden)
        return self._on.store.builds_numbered(found.ids), found.next

    def builds_numbered(self, viewer: Actor | None, build_ids: tuple[int, ...]) -> tuple[Build, ...]:
        """These builds without attempts, in this order; builds that the viewer may not see are left out."""
        hidden = self._places.hidden_from(viewer)
        return tuple(build for build in self._on.store.builds_numbered(build_ids) if build.project not in hidden)

    def package_names(self, viewer: Actor | None, start: str, *, limit: int = 50) -> tuple[str, ...]:
        """The names of packages that have builds which the viewer sees, and that begin with this text."""
        names = self._on.store.package_names(start, limit=limit)
        if not (hidden := self._places.hidden_from(viewer)):
            return names
        store = self._on.store
        return tuple(one for one in names if store.find_builds(BuildQuery(package=one), limit=1, hidden=hidden).ids)

    def runs(self, builds: tuple[Build, ...]) -> tuple[StepRun, ...]:
        """The last attempt of each step of these builds that has begun."""
        return self._on.store.runs([build.id for build in builds])

    def outcomes(self, viewer: Actor | None) -> tuple[ArchOutcomes, ...]:
        """How the newest finished builds that the viewer sees ended, by arch."""
        hidden = self._places.hidden_from(viewer)
        return outcomes_of(self.runs(self._on.store.builds(status=Status.FINISHED, limit=COUNTED, hidden=hidden)))

    def estimate(self, build: Build) -> Estimate | None:
        """When the build ends, by the newest successful builds of its package for its target."""
        if build.status is Status.FINISHED:
            return None
        return estimate(build, self.runs(self._good_before(build, ESTIMATED_FROM)))

    def _good_before(self, build: Build, limit: int) -> tuple[Build, ...]:
        wanted = BuildQuery(
            package=build.package, target=build.target, outcome=Outcome.SUCCEEDED, project=build.project
        )
        found = self._on.store.find_builds(wanted, limit=limit, before=build.id)
        return self._on.store.builds_numbered(found.ids)

    # --- roots --------------------------------------------------------------------------------------------------

    def root(self, build: Build, arch: Arch) -> dict[str, str]:
        """The digest of each package of the build's root by its identity; empty without a record."""
        record = root_records(build).get(arch)
        return read_root(self._on.artifacts, record) if record is not None else {}

    def root_difference(self, build: Build, arch: Arch) -> RootDifference | None:
        """To the root of the last good build of the package before; None if one of the two has no record."""
        before = next(iter(self._good_before(build, 1)), None)
        if before is None:
            return None
        try:
            was, now = self.root(self._on.store.build(before.id), arch), self.root(build, arch)
        except FarmError:  # an artifact that was collected
            return None
        return (
            RootDifference(before=before.id, changes=root_changes(was, now, self._format(build)))
            if was and now
            else None
        )

    def _format(self, build: Build) -> str:
        return find_target(self._on.settings, build.target).format

    # --- repositories -------------------------------------------------------------------------------------------

    def published(self) -> dict[str, int]:
        """The newest version of each repository that has any, by its path. It asks the database alone."""
        return {path: head.version for path, head in self._on.store.heads().items() if head.version}

    def packages_of(self, name: RepositoryName, version: int) -> tuple[IndexedPackage, ...]:
        """The packages of a version, by file name. Raises NotFound for a version that is not kept."""
        key = (name.path, version)  # a version never changes
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
                return self._indexes[key]
        found = self._on.repositories.index(name, version)
        with self._lock:
            self._indexes[key] = found
            while len(self._indexes) > _INDEXES_MAX:
                self._indexes.popitem(last=False)
        return found

    # --- logs ---------------------------------------------------------------------------------------------------

    def log_text(self, place: LogPlace, *, base: int = 0) -> LogText:
        """The log of an attempt as it is now; of a running one, from the byte `base` on. Raises FarmNotRunning."""
        label, artifact = place.attempt.label, place.artifact
        if artifact is not None:
            return StoredLog(label, artifact, self._on.artifacts, self._index)
        if place.attempt.status is Status.FINISHED:
            return StoredEmpty(label)
        import redis

        from farm.broker.connection import unanswered

        try:
            return LiveLog(label, self._on.leases.read_log(label, base), base)
        except redis.RedisError as error:
            raise unanswered(error) from error


class StoredEmpty(LiveLog):
    """The log of an attempt that ended without one."""

    is_over = True

    def __init__(self, attempt: str) -> None:
        super().__init__(attempt, b"")
