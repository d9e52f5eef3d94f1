"""A step type that the farm does not know: after the upload, `smoke` installs the packages of the build from the farm's
repository in a fresh root of the target, and runs a command there.

FARM_EXTENSIONS names this module. Two macros of a request say what is done: `smoke_wants` names packages that are
installed too, `smoke_command` is the command, `true` without it.
"""

from dataclasses import dataclass

from farm.formats.registry import format_of as farm_format
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.model.work import PinnedRepository, StepResult, Work
from farm.queues import build_queue
from farm.state.graph import How
from farm.steps.base import Order, StepType, World
from farm.steps.registry import register
from workers.core.context import StepContext
from workers.formats.registry import format_of
from workers.steps import registry as runs


@dataclass(frozen=True, kw_only=True)
class SmokeInput:
    """`packages` are identities of what the build made, `wanted` names of other packages."""

    arch: Arch
    packages: tuple[str, ...]
    wanted: tuple[str, ...]
    command: str
    repositories: tuple[PinnedRepository, ...]


@dataclass(frozen=True, kw_only=True)
class SmokeResult:
    seconds: float


class Smoke(StepType[SmokeInput, SmokeResult]):
    name = "smoke"
    input = SmokeInput
    output = SmokeResult
    needs = (("upload", How.SUCCESS), ("build", How.SUCCESS))
    is_per_arch = True
    runs_in_root = True

    def queue(self, arch: Arch | None) -> str:
        if arch is None:
            raise ValueError("a smoke step has an arch")
        return build_queue(arch)

    def make(self, order: Order, world: World) -> SmokeInput:
        told = dict(order.options.defines)
        return SmokeInput(
            arch=order.arch,
            packages=tuple(one.identity for one in order.need("build").output.rpms),
            wanted=tuple(told.get("smoke_wants", "").split()),
            command=told.get("smoke_command", "true"),
            repositories=world.own_repositories(order, order.arch),
        )


def run(work: Work[SmokeInput], context: StepContext) -> StepResult[SmokeResult]:
    given, form = work.input, farm_format(work.target.format)
    made = [form.parse_identity(one) for one in given.packages]
    wanted = (*(one.name for one in made if not one.is_debug), *given.wanted)
    maker = format_of(work.target).roots(context.settings)
    repositories = tuple((one.name, one.url) for one in given.repositories)
    with (
        maker.root(work.target, given.arch, wanted, context, repositories=repositories) as root,
        root.phase("smoke"),
    ):
        ran = root.run(["/bin/sh", "-ec", given.command])
    if ran.outcome is not Outcome.SUCCEEDED:
        return StepResult(outcome=ran.outcome, reason=ran.reason or f"{given.command} did not succeed")
    return StepResult(outcome=Outcome.SUCCEEDED, output=SmokeResult(seconds=context.phases[-1].seconds))


register(Smoke())
runs.register(Smoke.name, run)
