"""The packages that the demo gives to the farm, and the result that it expects of each. Data only."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The form in which the farm gets the source."""

    GIT = "git"
    SRPM = "srpm"


class Upstream(Enum):
    """The origin of the tarball."""

    DEBIAN = "debian"
    OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One package; its spec is packages/<name>/<name>.spec, our own source the folder <name>-<version> beside it."""

    name: str
    version: str
    about: str
    kind: Kind
    upstream: Upstream
    succeeds: bool = True
    # The command that shows that the installed package works.
    run: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        return f"v{self.version}"


# In the order they have to be built: greet needs libgreet.
RECIPES = (
    Recipe(
        name="hello",
        version="2.10",
        about="GNU Hello from git, its spec and upstream tarball side by side",
        kind=Kind.GIT,
        upstream=Upstream.DEBIAN,
        run=("/usr/bin/hello",),
    ),
    Recipe(
        name="sl",
        version="5.02",
        about="a steam locomotive from a src.rpm, needs ncurses-devel",
        kind=Kind.SRPM,
        upstream=Upstream.DEBIAN,
    ),
    Recipe(
        name="libgreet",
        version="1.0",
        about="a small library of our own, from git",
        kind=Kind.GIT,
        upstream=Upstream.OURS,
    ),
    Recipe(
        name="greet",
        version="1.0",
        about="a program built against the library before it",
        kind=Kind.GIT,
        upstream=Upstream.OURS,
        run=("/usr/bin/greet", "farm"),
    ),
    Recipe(
        name="misfit",
        version="1.0",
        about="a package that fails its own %check",
        kind=Kind.GIT,
        upstream=Upstream.OURS,
        succeeds=False,
    ),
)
