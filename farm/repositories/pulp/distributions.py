"""The distributions of one repository in Pulp, found by name, with their name as base path.

Makes, changes and removes them. If a person has changed the base path of a distribution, the farm does not
change it back.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pulp_glue.common.exceptions import PulpException, PulpHTTPError

from farm.errors import RepositoryTrouble
from farm.repositories.pulp.plugins import REFUSED, Plugin
from farm.repositories.pulp.server import Context
from farm.repositories.pulp.words import TaskFailed

_log = logging.getLogger(__name__)

CURRENT = "current"
_FIELDS = ["pulp_href", "pulp_created", "name", "base_path", "repository", "repository_version", "publication"]


class Distributions:
    """The distributions of the repository `name`, by the rest of their names: a version's number, or `current`. For one
    thread.
    """

    def __init__(self, context: Context, plugin: Plugin, name: str, *, labels: Mapping[str, str]) -> None:
        self._context = context
        self._kind = plugin.distribution
        self._name = name
        self._labels = labels
        self._guard = context.server.settings.pulp_content_guard

    def listed(self) -> dict[str, dict[str, Any]]:
        listed = self._kind(self._context).list_iterator({"name__startswith": f"{self._name}/", "fields": _FIELDS})
        return {one["name"].rpartition("/")[2]: one for one in listed}

    def serve(self, last: str, what: Mapping[str, Any]) -> None:
        """Make a distribution that serves this, or change it. Raises RepositoryTrouble if Pulp refuses."""
        name = f"{self._name}/{last}"
        try:
            self._context.tried(lambda: self._kind(self._context).create(self._wanted(name, what)))
        except PulpHTTPError as error:
            if error.status_code != REFUSED:
                raise
            found = next(iter(self._kind(self._context).list_iterator({"name": name}, batch_size=1)), None)
            if found is None:
                raise RepositoryTrouble(
                    f"Pulp cannot serve {name!r}: {self._context.server.words(error)}; another distribution has that "
                    f"base path or one below it: rename it, or set another FARM_PULP_PREFIX"
                ) from error
            self.check_base_path(found)
            self.point(found, what)

    @contextmanager
    def served_beside(self, last: str, what: Mapping[str, Any]) -> Iterator[None]:
        """As `serve`, with what the block does at the same time; done when the block is left."""
        name = f"{self._name}/{last}"
        try:
            task = self._kind(self._context).create(self._wanted(name, what), non_blocking=True)
        except PulpHTTPError as error:
            if error.status_code != REFUSED:
                raise
            task = None
        yield
        try:
            if task is not None:
                self._context.wait_for_task(task)
                return
        except TaskFailed as error:
            _log.warning("%s: %s; trying again", name, error, extra={"action": "retry"})
        self.serve(last, what)

    def point(self, distribution: Mapping[str, Any], to: Mapping[str, Any]) -> None:
        self._kind(self._context, pulp_href=distribution["pulp_href"]).update(dict(to))

    def drop(self, distribution: Mapping[str, Any]) -> None:
        """Remove a distribution that is not needed any more; if that fails, the next call tries again."""
        try:
            self._kind(self._context, pulp_href=distribution["pulp_href"]).delete(non_blocking=True)
        except PulpException as error:
            _log.warning("%s was not removed: %s", distribution["name"], error, extra={"action": "retain"})

    def check_base_path(self, distribution: Mapping[str, Any]) -> None:
        """Raises RepositoryTrouble."""
        if distribution["base_path"] != distribution["name"]:
            raise RepositoryTrouble(
                f"Pulp's distribution {distribution['name']!r} has the base path {distribution['base_path']!r}, so "
                f"clients with the farm's address do not find it; set its base path to its name, then retry the step"
            )

    def _wanted(self, name: str, what: Mapping[str, Any]) -> dict[str, Any]:
        guard = {"content_guard": self._guard} if self._guard else {}
        return {"name": name, "base_path": name, "pulp_labels": dict(self._labels), **guard, **what}
