"""mock's command lines: everything that differs from build to build, as arguments. Pure functions.

No shell is used here, but mock expands its arguments as Jinja templates, on the host and outside the root. So macros
and bcond names, which people may write, are refused if they hold a template (compare CVE-2023-6395).
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext
from workers.core.text import shown
from workers.formats.rpm.mock.host import Isolation, MockHost

SOURCE_IN_ROOT = "/builddir/build/originals/farm.src.rpm"
MADE_SRPMS_IN_ROOT = "/builddir/build/SRPMS/*.src.rpm"
LISTING = "farm-root"
LIST_ROOT = (
    f"rpm -qa --qf '%{{NAME}}-%{{EPOCHNUM}}:%{{VERSION}}-%{{RELEASE}}.%{{ARCH}} %{{SHA256HEADER}}\\n' > /{LISTING}"
)
MADE_BUILDREQS_IN_ROOT = "/builddir/build/SRPMS/*.buildreqs.nosrc.rpm"

_UNIQUE = re.compile(r"[^A-Za-z0-9_]+")
_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_BCOND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_MACRO = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\([^()\s]*\))?")


@dataclass(frozen=True, kw_only=True)
class MockCall:
    """The common part of all mock runs of an attempt. `unique` separates its root from other attempts' roots, while
    root and download caches stay shared. `root` is in the attempt's own folder, so that its size can be watched and all
    of it can be removed."""

    host: MockHost
    config: Path
    isolation: Isolation
    unique: str
    results: Path
    root: Path
    build: tuple[str, ...] = ()

    def argv(self, *command: str, offline: bool = False) -> list[str]:
        """A full command line. With `offline`, mock and all its processes have no network."""
        return [
            *self.host.prefix(offline=offline),
            str(self.host.program),
            f"--root={self.config}",
            f"--isolation={self.isolation}",
            f"--uniqueext={self.unique}",
            f"--rootdir={self.root}",
            f"--resultdir={self.results}",
            *self.build,
            *(("--offline",) if offline else ()),
            *command,
        ]


def unique_ext(attempt: str) -> str:
    """An attempt's label as a part of a path."""
    return _UNIQUE.sub("_", attempt)


def build_arguments(
    arch: Arch, options: BuildOptions, repositories: tuple[tuple[str, str], ...], context: StepContext
) -> tuple[str, ...]:
    """Arch, macros, bconds, the farm's own repositories, and rpmbuild's time limit.

    Raises Ended, FAILED, for a macro or bcond that must not be passed to mock.
    """
    for name in (*options.with_, *options.without):
        if not _BCOND.fullmatch(name):
            raise Ended(Outcome.FAILED, f"{shown(name)!r} is no name for --with or --without")
    for name, value in options.defines:
        _check_macro(name, value)
    return (
        f"--target={arch.rpm}",
        *(f"--with={name}" for name in options.with_),
        *(f"--without={name}" for name in options.without),
        *(f"--define={name} {value}" for name, value in options.defines),
        *(f"--addrepo={url.replace('{arch}', arch.rpm)}" for _, url in repositories),
        f"--rpmbuild_timeout={max(1, int(context.deadline - time.monotonic()))}",
    )


def _check_macro(name: str, value: str) -> None:
    if not _MACRO.fullmatch(name):
        raise Ended(Outcome.FAILED, f"{shown(name)!r} is no name for a macro")
    if _TEMPLATE.search(value) or not value.isprintable() or not value.strip():
        raise Ended(
            Outcome.FAILED,
            f"the macro {name} cannot be passed to mock: its value {shown(value)!r} is empty, has characters that "
            "do not print, or holds {{, {% or {#, which mock would expand on the host",
        )
