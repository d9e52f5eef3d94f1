"""RPM's `Filler`: the keys that decide the content of a root, and the packages that dnf installed, from dnf's plans.

Does not own the installation (`workers.formats.rpm.install`), nor the folders (`workers.roots`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from farm.config import Settings
from farm.errors import NetworkTrouble
from farm.formats.rpm.settings import settings_of
from farm.model.arch import Arch
from farm.model.nevra import Nevra
from farm.model.target import Target
from workers.core.context import StepContext
from workers.formats.rpm.capabilities import Capability, Provided, unmet
from workers.formats.rpm.dnf import DnfRepository, pinned_repositories, target_repositories
from workers.formats.rpm.install import DnfInstall
from workers.formats.rpm.plan import Plan
from workers.isolation.sandbox import Confinement
from workers.roots.base import PinnedUrl
from workers.roots.listing import read_once, write_once
from workers.roots.root import Root, RootPackage

_REPOMD_BYTES = 16 * 2**20
#: The file of a template's provides, in its folder. A layer needs no such file.
_PROVIDED = "provided"


class RpmFiller:
    """Fills the roots of one target and arch, for one attempt."""

    def __init__(
        self, settings: Settings, target: Target, arch: Arch, context: StepContext, confinement: Confinement
    ) -> None:
        self._target = target
        self._arch = arch
        self._install = DnfInstall(settings, target, arch, context, confinement)

    @cached_property
    def _repositories(self) -> tuple[DnfRepository, ...]:
        return target_repositories(self._target, self._arch)

    def template_key(self) -> object:
        return target_key(self._target, self._repositories)

    def layer_key(self, wanted: Sequence[str], repositories: Sequence[PinnedUrl], base: Root) -> object:
        return [sorted(wanted), [_identity(one) for one in _pinned(repositories, base)]]

    def install(self, root: Path, *, into: Path) -> Sequence[RootPackage]:
        plan = self._install.install(self._target.packages, self._repositories, root=root, into=into)
        write_once(into / _PROVIDED, provided(plan))
        return in_order(plan.packages)

    def missing(self, wanted: Sequence[str], template: Path) -> tuple[str, ...]:
        return unmet(wanted, read_once(template / _PROVIDED, Provided))

    def add(
        self, wanted: Sequence[str], repositories: Sequence[PinnedUrl], *, base: Root, upper: Path, into: Path
    ) -> Sequence[RootPackage]:
        configured = (*_pinned(repositories, base), *self._repositories)
        plan = self._install.add(wanted, configured, lower=base.lowers[0], upper=upper, into=into)
        return applied(base.packages, plan)


def target_key(target: Target, repositories: Sequence[DnfRepository]) -> object:
    """The key of the target. For a local repository it has the content, so that a changed repository gives a new
    template; for one on a server it has the day, so that updates arrive within a day."""
    day = "" if all(one.is_local for one in repositories) else datetime.now(UTC).date().isoformat()
    identities = [_identity(one) for one in repositories]
    settings = settings_of(target)
    return [sorted(target.packages), settings.rpmdb, settings.module_platform, identities, day]


def provided(plan: Plan) -> Provided:
    """The capabilities and files of a template's packages."""
    capabilities: dict[str, list[Capability]] = {}
    for one in plan.added:
        for given in one.provides:
            capabilities.setdefault(given.name, []).append(given)
    return Provided(
        capabilities={name: tuple(given) for name, given in capabilities.items()},
        files=frozenset(name for one in plan.added for name in one.files),
    )


def applied(base: Sequence[RootPackage], plan: Plan) -> tuple[RootPackage, ...]:
    """The packages of a root after the plan was carried out."""
    removed = set(plan.removed)
    return in_order([*(package for package in base if package.identity not in removed), *plan.packages])


def in_order(packages: Sequence[RootPackage]) -> tuple[RootPackage, ...]:
    return tuple(sorted(packages, key=lambda package: (package.identity, package.digest)))


def _pinned(repositories: Sequence[PinnedUrl], base: Root) -> tuple[DnfRepository, ...]:
    return pinned_repositories(repositories, without=[Nevra.parse(one.identity).name for one in base.packages])


def _identity(repository: DnfRepository) -> object:
    if repository.folder is None:
        return asdict(repository)
    try:
        repomd = (repository.folder / "repodata/repomd.xml").read_bytes()[:_REPOMD_BYTES]
    except OSError as error:
        message = (
            f"repository {repository.name} has no {error.filename}: {error.strerror}; is it there, and mounted here?"
        )
        raise NetworkTrouble(message) from error
    return [asdict(repository), hashlib.sha256(repomd).hexdigest()]
