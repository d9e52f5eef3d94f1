"""What every build engine does: make a source package or binary packages in a clean root. No step logic."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Target
from workers.core.context import StepContext


@dataclass(frozen=True, kw_only=True)
class SrpmRequest:
    """Either `srpm` (a src.rpm to be made again for the target, so that its macros count) or `sources` (a folder
    with the spec, named by `spec`, and every source file beside it)."""

    target: Target
    arch: Arch
    options: BuildOptions
    srpm: Path | None = None
    sources: Path | None = None
    spec: str | None = None
    source_date_epoch: int | None = None


@dataclass(frozen=True, kw_only=True)
class RpmsRequest:
    """`repositories` are the farm's own, pinned: (name, URL). `build_requires` as the srpm's header has them."""

    target: Target
    arch: Arch
    options: BuildOptions
    srpm: Path
    build_requires: Sequence[str]
    repositories: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class RootPackage:
    """A package in the root: its NEVRA and the digest that its header carries (RPM's SHA256 header digest)."""

    nevra: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class EngineRun:
    """What came of it. `results` is a folder of files as the recipe left them: names, types and contents hostile;
    empty unless `outcome` is a success. `header` (srpm only) is what the spec says on this target: see SrpmHeader.
    `outcome` is SUCCEEDED, FAILED, UNRESOLVABLE (reason names what nothing provides), EXCLUDED, TIMED_OUT, STALLED or
    OVER_LIMIT.
    """

    outcome: Outcome
    results: Path
    reason: str | None = None
    root: tuple[RootPackage, ...] = ()
    peak_memory_bytes: int | None = None
    header: "SrpmHeader | None" = None


@dataclass(frozen=True, kw_only=True)
class SrpmHeader:
    """Tags of the made src.rpm. `binary_arches` is what the spec's main package is made for: ("noarch",), beside which
    rpm allows no other, or the arch of the root."""

    nevra: str
    build_requires: tuple[str, ...]
    exclusive_arches: tuple[str, ...]
    exclude_arches: tuple[str, ...]
    binary_arches: tuple[str, ...]


class BuildEngine(Protocol):
    """Both raise trouble (RootTrouble, HostUnfit, NetworkTrouble, DiskFull) and LeaseLost when `context.stop` is
    set; everything that is the package's doing is in the EngineRun. Nothing of the root is left when they return."""

    def make_srpm(self, request: SrpmRequest, context: StepContext) -> EngineRun: ...

    def make_rpms(self, request: RpmsRequest, context: StepContext) -> EngineRun: ...
