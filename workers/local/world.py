"""This machine in place of a farm: its arches, and the repositories of its settings."""

from dataclasses import dataclass
from functools import cached_property

from farm.config import Settings
from farm.model.arch import Arch
from farm.model.place import DEFAULT_PROJECT
from farm.model.target import Target
from farm.model.work import PinnedRepository, repository_id
from farm.repositories import open_repositories
from farm.repositories.base import RepositoryBackend, RepositoryKind, RepositoryName
from farm.steps.base import Order
from workers.isolation.emulator import native_arch


@dataclass(frozen=True)
class HostWorld:
    """A `LocalWorld`."""

    settings: Settings
    target: Target

    @cached_property
    def _repositories(self) -> RepositoryBackend:
        return open_repositories(self.settings)

    @property
    def native(self) -> tuple[Arch, ...]:
        own = native_arch()
        return (own,) if own is not None else ()

    def source_arch(self, order: Order) -> Arch:
        return self.root_arch(order.arches)

    def root_arch(self, asked: tuple[Arch, ...]) -> Arch:
        """An arch of the target that this machine runs without emulation, where there is one; else the first that is
        asked for."""
        return next((arch for arch in self.native if arch in self.target.arches), asked[0])

    def own_repositories(self, order: Order, arch: Arch) -> tuple[PinnedRepository, ...]:
        own = self.own(order.target, arch)
        return (own,) if own is not None else ()

    def pinned(self, target: Target, arch: Arch) -> Target:
        def url_of(name: str) -> str | None:
            own = self.own(name, arch)
            return own.url if own is not None else None

        return target.pinned(url_of)

    def own_at(self, project: str, arch: Arch, version: int) -> PinnedRepository | None:
        """The repository of a project's builds for the target and this arch at a version, or at the newest one if that
        version is not kept. None if it has no packages. The address comes from the back end alone."""
        name = self._name(project, self.target.name, arch)
        kept = (one.number for one in self._repositories.versions(name))
        return self._pinned(name, version if version in kept else None)

    def own(self, target: str, arch: Arch) -> PinnedRepository | None:
        """The repository of the default project's builds for this target and arch; None if it has no packages."""
        return self._pinned(self._name(DEFAULT_PROJECT, target, arch), None)

    def _pinned(self, name: RepositoryName, version: int | None) -> PinnedRepository | None:
        version = version or self._repositories.current(name)
        if not version or name.arch is None:
            return None
        url = self._repositories.url(name, version)
        return PinnedRepository(name=repository_id(name.project, name.target, name.arch), url=url, version=version)

    def _name(self, project: str, target: str, arch: Arch) -> RepositoryName:
        kind, form = RepositoryKind.BINARY, self.target.format
        return RepositoryName(project=project, target=target, kind=kind, arch=arch, format=form)
