"""The `fetch` step: from a git ref or a src.rpm to an archive in the artifact store."""

from collections.abc import Iterable
from dataclasses import dataclass

from farm.formats.registry import format_of
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.source import Source
from farm.queues import SOURCE
from farm.state.changes import BuildState, StepState
from farm.state.text import clean
from farm.steps.base import Order, Settling, StepType, World

_NAME_CHARS = 255


@dataclass(frozen=True, kw_only=True)
class FetchInput:
    """`arch` is that of the root in which the recipe is asked for its sources, `arches` are those of the build. An
    offer of an earlier version has neither."""

    source: Source
    arch: Arch | None = None
    arches: tuple[Arch, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    """`archive` is a src.rpm, or an uncompressed tar of the spec's folder with every source file beside the spec
    (`spec` is its name there). `commit_at` is the commit's time in seconds since 1970, for reproducible mtimes."""

    archive: Artifact
    spec: str | None = None
    commit: str | None = None
    commit_at: int | None = None


class Fetch(StepType[FetchInput, FetchResult]):
    name = "fetch"
    input = FetchInput
    output = FetchResult
    takes_secrets = True
    runs_in_root = True

    def queue(self, arch: Arch | None) -> str:
        return SOURCE

    def make(self, order: Order, world: World) -> FetchInput:
        return FetchInput(source=order.source, arch=world.source_arch(order), arches=order.arches)

    def artifacts(self, output: FetchResult) -> Iterable[Artifact]:
        return (output.archive,)

    def problem(self, build: BuildState, step: StepState, output: FetchResult) -> str | None:
        spec = output.spec
        if spec is None:
            return None
        is_sound = "/" not in spec and spec.isprintable() and format_of(build.format).recipe_problem(spec) is None
        return None if is_sound else f"the recipe's name {spec[:_NAME_CHARS]!a}"

    def settle(self, settling: Settling, output: FetchResult) -> None:
        if output.commit is not None:
            settling.changes.put(settling.build, source_commit=clean(output.commit))


FETCH = Fetch()
