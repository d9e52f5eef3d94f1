"""The protocols of roots: the maker of a format's roots, and the part of it that a package format provides.

A format provides a `Filler`, which installs packages into a folder, and gets the rest from `workers.roots`: cached
templates and layers, and sessions in which commands run.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from farm.model.arch import Arch
from farm.model.target import Target
from workers.core.context import StepContext
from workers.roots.root import Root, RootPackage
from workers.roots.session import RootSession

#: One of the farm's own repositories, at a pinned version: its name and its URL.
PinnedUrl = tuple[str, str]


class Filler(Protocol):
    """Installs packages of one format into the roots of one target and arch, for one attempt.

    A key is a JSON value of everything that decides the content of a template or a layer. All methods but the keys may
    raise trouble, Ended for a fault of a package of the build, and LeaseLost. No answer may come from inside the root,
    since code of packages ran there.
    """

    def template_key(self) -> object: ...

    def layer_key(self, wanted: Sequence[str], repositories: Sequence[PinnedUrl], base: Root) -> object: ...

    def install(self, root: Path, *, into: Path) -> Sequence[RootPackage]:
        """Fill the empty folder `root`, with the folders of `sandbox.RESERVED_FOLDERS` too: the sandbox mounts there.
        Returns the packages in it. `into` is the template's folder, where the filler may keep its own files."""
        ...

    def missing(self, wanted: Sequence[str], template: Path) -> tuple[str, ...]:
        """The requirements that the template in this folder does not meet."""
        ...

    def add(
        self, wanted: Sequence[str], repositories: Sequence[PinnedUrl], *, base: Root, upper: Path, into: Path
    ) -> Sequence[RootPackage]:
        """Install the packages that meet the requirements over `base`, with the difference in `upper`. Returns all
        packages of the root. Raises Ended (unresolvable) if no package provides one of the requirements."""
        ...


class RootMaker(Protocol):
    """Makes the roots of one format on this host."""

    def root(
        self,
        target: Target,
        arch: Arch,
        wanted: Sequence[str],
        context: StepContext,
        *,
        repositories: Sequence[PinnedUrl] = (),
    ) -> AbstractContextManager[RootSession]:
        """A session in a clean root of the target, with packages that meet the requirements. All its files are removed
        afterwards.

        Raises trouble; Ended for requirements that cannot be met; LeaseLost once the context is stopped.
        """
        ...
