"""One repository in Pulp: its versions, their publications and their distributions.

Makes them converge: looks, then creates or changes. For the repository `demo/x86_64/os` and the prefix `farm` there is

    repository    farm/demo/x86_64/os
    distribution  farm/demo/x86_64/os/current    serves the newest publication of the repository
    distribution  farm/demo/x86_64/os/<N>        serves the publication of version N, for as long as N is kept

Distributions have their name as base path. A version that is served is protected from Pulp's own retention, so what
keeps a version is its distribution, and the farm removes those of old ones: as many stay as the target says.

`current` follows the repository, so there is no moment without one, and two publishers cannot turn it back. When it
serves a fixed publication it was rolled back, by `rollback` or by a person: what comes next builds on what it serves.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pulp_glue.common.context import PluginRequirement, PulpRepositoryContext
from pulp_glue.common.exceptions import PulpHTTPError

from farm.errors import NotFound, RepositoryTrouble
from farm.model.place import DEFAULT_PROJECT
from farm.repositories.base import RepositoryKind, RepositoryName, RepositoryVersion
from farm.repositories.pulp.content import check_epochs, packages_in, path_of, unit_key
from farm.repositories.pulp.distributions import CURRENT, Distributions
from farm.repositories.pulp.plugins import FILE, REFUSED, RPM
from farm.repositories.pulp.server import TRIES, Context
from farm.repositories.pulp.words import TaskFailed, TaskTooSlow

_log = logging.getLogger(__name__)

_UNITS_AT_ONCE = 10_000  # more in one request time out at Pulp
_NAMES_AT_ONCE = 50
GRACE_S = 1800.0  # how long a build may wait before it fills its root from the version it is pinned to
_DROP_AT_ONCE = 16
_LEAST_KEPT = 2  # with one there is a moment in which nothing is served
_UNSERVED_KEPT = 10  # by Pulp: versions that publishers who know nothing of each other made and do not serve yet
_SERVES_VERSIONS = PluginRequirement("core", specifier=">=3.106.0")


#: The resource names of content to add and to remove.
_Change = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The repository and its distributions as they were when this was made. `pinned` is by version number."""

    repository: dict[str, Any]
    current: dict[str, Any] | None
    pinned: dict[int, dict[str, Any]]

    @property
    def latest(self) -> int:
        return _number(self.repository["latest_version_href"])

    def version_href(self, number: int) -> str:
        return f"{self.repository['versions_href']}{number}/"


class Repository:
    """For one thread and one operation."""

    def __init__(self, context: Context, name: RepositoryName, *, grace_s: float = GRACE_S) -> None:
        self._context = context
        self._grace = timedelta(seconds=grace_s)
        self._plugin = FILE if name.kind is RepositoryKind.LOGS else RPM
        self._is_pinned = name.kind is not RepositoryKind.LOGS
        self._labels = _labels(name)
        self.name = f"{context.server.settings.pulp_prefix}/{name.path}"
        self._distributions = Distributions(context, self._plugin, self.name, labels=self._labels)

    # --- adding -------------------------------------------------------------------------------------------------

    def add(self, units: Mapping[str, str], *, keep: int) -> int:
        """Publish a version that has the units (`Unit.key` to resource name), in place of others of the same keys.

        Returns its number; makes neither a version nor a publication when the newest has them and is served.
        """

        def change(seen: _Seen) -> _Change:
            here = self._here(seen, units)
            check_epochs({*here, *units})
            missing = {path: prn for path, prn in units.items() if here.get(path, {}).keys() != {prn}}
            replaced = [old for path, prn in missing.items() for old in here.get(path, {}) if old != prn]
            return list(missing.values()), replaced

        return self._changed(change, keep=keep)

    def remove(self, sha256s: Collection[str], *, keep: int) -> int:
        """Publish a version without these packages. Returns its number; the newest one's when that has none of them,
        and 0 without a repository."""

        def change(seen: _Seen) -> _Change:
            href = seen.repository["latest_version_href"]
            found = packages_in(href, sha256s, self._context) if seen.latest else {}
            return [], [unit.prn for unit in found.values()]

        return 0 if self.look() is None else self._changed(change, keep=keep)

    def _changed(self, change: Callable[[_Seen], _Change], *, keep: int) -> int:
        """Publish a version with the change, which is asked for anew when others have changed the newest one."""
        for left in reversed(range(TRIES)):
            seen = self._follow(self._ensure())
            added, removed = change(seen)
            is_new = bool(added or removed)
            number = self._modify(seen, added, removed) if is_new else seen.latest
            if not is_new and self._is_published(seen, number):
                return number
            try:
                self._publish(seen, number, is_new=is_new)
            except (TaskFailed, PulpHTTPError, RepositoryTrouble) as error:
                # Publishers that this one knows nothing of may have made so many versions that Pulp has dropped this
                # one; the newest has what it had.
                if left == 0 or isinstance(error, TaskTooSlow) or self._latest() <= number:
                    raise
                _log.warning("%s: version %d was overtaken: %s", self.name, number, error, extra={"action": "retry"})
                continue
            self._retain(seen, keep)
            return number
        raise AssertionError("unreachable")

    def _is_published(self, seen: _Seen, number: int) -> bool:
        is_served = number in seen.pinned or not self._is_pinned
        return is_served and self._publication(seen.version_href(number)) is not None

    def _modify(self, seen: _Seen, add: Sequence[str], remove: Sequence[str], base: str | None = None) -> int:
        """The number of the version that came of it: the newest, when nothing changed."""
        number = seen.latest
        for start in range(0, max(len(add), len(remove), 1), _UNITS_AT_ONCE):
            part = slice(start, start + _UNITS_AT_ONCE)
            asked = partial(
                self._repository(seen).modify,
                add_content=list(add[part]),
                remove_content=list(remove[part]),
                base_version=base,
            )
            made = self._context.tried(asked)
            found = _made_version(made)
            number = found if found is not None else self._latest()
        return number

    def _publish(self, seen: _Seen, number: int, *, is_new: bool) -> dict[str, Any]:
        """A publication of the version and, where versions are served, a distribution for it; the publication.

        A Pulp that has distributions of versions makes both at the same time.
        """
        href = seen.version_href(number)
        with ExitStack() as serving:
            is_beside = self._is_pinned and self._context.has_plugin(_SERVES_VERSIONS)
            if is_beside:
                what = {"repository": seen.repository["pulp_href"], "version": number}
                serving.enter_context(self._distributions.served_beside(str(number), what))
            found = None if is_new else self._publication(href)
            if found is None:
                found = self._context.tried(lambda: self._make_publication(href), look=lambda: self._publication(href))
        if self._is_pinned and not is_beside:
            self._distributions.serve(str(number), {"publication": found["pulp_href"]})
        return found

    def _make_publication(self, version_href: str) -> dict[str, Any]:
        context = self._plugin.publication(self._context)
        made: dict[str, Any] = context.create({"repository_version": version_href, **self._plugin.publication_options})
        return made

    def _publication(self, version_href: str) -> dict[str, Any] | None:
        wanted = {"repository_version": version_href, "fields": ["pulp_href", "prn", "repository_version"]}
        return next(iter(self._plugin.publication(self._context).list_iterator(wanted, batch_size=1)), None)

    def _here(self, seen: _Seen, units: Mapping[str, str]) -> dict[str, dict[str, None]]:
        """The resource names that the newest version has under these keys, and under the same paths, by key."""
        found: dict[str, dict[str, None]] = {}
        if seen.latest == 0:
            return found
        paths = set(map(path_of, units))
        key, names = "name__in", {path.rsplit("-", 2)[0] for path in units}
        if self._plugin is FILE:
            key, names = ("relative_path__in", set(units))
        ordered = sorted(names)
        for start in range(0, len(ordered), _NAMES_AT_ONCE):
            wanted = {
                "repository_version": seen.repository["latest_version_href"],
                key: ordered[start : start + _NAMES_AT_ONCE],
                "fields": ["prn", self._plugin.path, *(() if self._plugin is FILE else ("epoch",))],
            }
            for one in self._plugin.content(self._context).list_iterator(wanted):
                unit = unit_key(one[self._plugin.path], one.get("epoch"))
                if unit in units or path_of(unit) in paths:
                    found.setdefault(unit, {})[one["prn"]] = None
        return found

    # --- the repository and its distributions -------------------------------------------------------------------

    def _ensure(self) -> _Seen:
        """The repository, and a distribution that serves it; both made when they are not there."""
        seen = self.look()
        if seen is None or seen.current is None:
            distributions = self._distributions.listed() if seen is None else {}
            self._check_not_deleted(distributions.get(CURRENT))
            repository = self._converged()
            seen = seen or _seen(repository, distributions)
            if seen.current is None:
                # Before there is anything to serve: a client then gets what is there as soon as it is.
                if seen.latest == 0 and self._is_pinned:
                    self._publish(seen, 0, is_new=False)
                self._distributions.serve(CURRENT, {"repository": repository["pulp_href"]})
                seen = self.look() or seen
        elif seen.repository["retain_repo_versions"] != _UNSERVED_KEPT:
            self._converged()
        return seen

    def look(self) -> _Seen | None:
        """None when there is no such repository."""
        found = next(
            iter(self._plugin.repository(self._context).list_iterator({"name": self.name}, batch_size=1)), None
        )
        return None if found is None else _seen(found, self._distributions.listed())

    def _converged(self) -> dict[str, Any]:
        """The repository itself. Several may try at once: one of them makes it."""
        for is_last in (False, True):
            context = self._plugin.repository(self._context, entity={"name": self.name})
            wanted = {"retain_repo_versions": _UNSERVED_KEPT}
            defaults = {"description": "Made by the farm.", "pulp_labels": self._labels}
            try:
                _, _, found = context.converge(wanted, defaults)
                return dict(found or {})
            except PulpHTTPError as error:
                if is_last or error.status_code != REFUSED:
                    raise
        raise AssertionError("unreachable")

    def _check_not_deleted(self, current: Mapping[str, Any] | None) -> None:
        if current is not None:
            raise RepositoryTrouble(
                f"the repository {self.name!r} was deleted from Pulp while its distribution {current['name']!r} "
                f"stayed, so its content is lost; restore it, or delete the distribution too to begin with an empty "
                f"repository, then retry the step"
            )

    def _follow(self, seen: _Seen) -> _Seen:
        """Have `current` serve the newest version, after bringing that back to what `current` serves if it was
        rolled back. Raises RepositoryTrouble when it was made to serve something else."""
        current = seen.current
        if current is None:
            raise RepositoryTrouble(f"Pulp's distribution {self.name}/{CURRENT} went away; retry the step")
        self._distributions.check_base_path(current)
        if current["publication"] is None and current.get("repository_version") is None:
            if current["repository"] == seen.repository["pulp_href"]:
                return seen
            raise RepositoryTrouble(
                f"Pulp's distribution {current['name']!r} serves another repository ({current['repository']}); have "
                f"it serve {self.name!r} again, then retry the step"
            )
        served = current.get("repository_version") or self._served_version(current["publication"])
        number = self._modify(seen, [], [], base=served)
        self._publish(seen, number, is_new=False)
        self._distributions.point(current, {"repository": seen.repository["pulp_href"]})
        return self.look() or seen

    def _served_version(self, publication_href: str) -> str:
        found = self._plugin.publication(self._context, pulp_href=publication_href).entity
        return str(found["repository_version"])

    def _retain(self, seen: _Seen, keep: int) -> None:
        """Stop serving old versions; with that, Pulp drops them when it makes the next one."""
        oldest = datetime.now(UTC) - self._grace
        numbers = sorted(seen.pinned)[: -max(keep, _LEAST_KEPT) + 1]
        gone = [seen.pinned[number] for number in numbers if _time(seen.pinned[number]["pulp_created"]) < oldest]
        for distribution in gone[:_DROP_AT_ONCE]:
            self._distributions.drop(distribution)

    # --- looking and rolling back -------------------------------------------------------------------------------

    def current(self) -> int:
        """The version that `current` serves; 0 when there is no repository."""
        seen = self.look()
        return 0 if seen is None else self._served(seen)

    def versions(self, url: str) -> tuple[RepositoryVersion, ...]:
        """The served versions, newest first; their numbers are appended to `url`."""
        seen = self.look()
        if seen is None:
            return ()
        now_served = self._served(seen)
        counts = {
            _number(one["pulp_href"]): (_time(one["pulp_created"]), _packages(one))
            for one in self._repository(seen).get_version_context().list_iterator()
        }
        return tuple(
            RepositoryVersion(
                number=number,
                published_at=counts[number][0],
                packages=counts[number][1],
                url=f"{url}{number}/",
                is_current=number == now_served,
            )
            for number in sorted(seen.pinned, reverse=True)
            if number in counts
        )

    def kept(self, number: int) -> str:
        """The address at Pulp of a served version. Raises NotFound."""
        seen = self.look()
        if seen is None or number not in seen.pinned:
            raise self._not_kept(seen, number)
        return seen.version_href(number)

    def _not_kept(self, seen: _Seen | None, number: int) -> NotFound:
        kept = ", ".join(str(one) for one in sorted(seen.pinned)) if seen is not None else ""
        return NotFound(f"{self.name} has no version {number}; kept are {kept or 'none'}")

    def rollback(self, to: int) -> int:
        """Re-point `current` at version `to`, which clients see at once; then make that the newest version."""
        seen = self.look()
        found = None if seen is None or to not in seen.pinned else self._publication(seen.version_href(to))
        if seen is None or seen.current is None or found is None:
            raise self._not_kept(seen, to)
        if self._served(seen) == to and seen.latest == to:
            return to
        self._distributions.check_base_path(seen.current)
        self._distributions.point(seen.current, {"publication": found["pulp_href"]})
        return self._follow(self.look() or seen).latest

    def _served(self, seen: _Seen) -> int:
        """By the distribution: Pulp shows the newest publication of the newest version that has one."""
        current = seen.current
        if current is None:
            return 0
        if current.get("repository_version"):
            return _number(current["repository_version"])
        if current["publication"]:
            return _number(self._served_version(current["publication"]))
        newest_first = sorted(seen.pinned, reverse=True)
        return next((number for number in newest_first if self._is_published(seen, number)), 0)

    # --- Pulp's ways --------------------------------------------------------------------------------------------

    def _repository(self, seen: _Seen) -> PulpRepositoryContext:
        context = self._plugin.repository(self._context)
        context._entity = seen.repository  # noqa: SLF001 - it was just read; the public way reads it again
        return context

    def _latest(self) -> int:
        seen = self.look()
        return 0 if seen is None else seen.latest


def _labels(name: RepositoryName) -> dict[str, str]:
    """The labels of the repository and its distributions. The default project, once the only one, has no label."""
    labels = {"target": name.target, "kind": str(name.kind)}
    if name.project != DEFAULT_PROJECT:
        labels["project"] = name.project
    if name.arch:
        labels["arch"] = str(name.arch)
    return labels


def _seen(repository: dict[str, Any], distributions: Mapping[str, dict[str, Any]]) -> _Seen:
    pinned = {
        int(name): one
        for name, one in distributions.items()
        if name.isdecimal() and (one["publication"] or one.get("repository_version"))
    }
    return _Seen(repository=repository, current=distributions.get(CURRENT), pinned=pinned)


def _number(version_href: str) -> int:
    return int(version_href.rstrip("/").rpartition("/")[2])


def _made_version(made: Any) -> int | None:
    """The answer of `modify`: the version itself, or (pulpcore before 3.86, or nothing changed) its task."""
    if "number" in made:
        return int(made["number"])
    return next((_number(href) for href in _created(made) if "/versions/" in href), None)


def _created(task: Mapping[str, Any]) -> Iterator[str]:
    yield from (str(href) for href in task.get("created_resources") or ())


def _packages(version: Mapping[str, Any]) -> int:
    present: Mapping[str, Mapping[str, Any]] = version["content_summary"]["present"]
    return sum(int(one["count"]) for kind, one in present.items() if kind == "rpm.package")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
