"""The `logs` step: publishes the logs and records of a build that did not succeed.

A build has one for each step that ended without success. Its outcome does not change the build's outcome.
"""

from dataclasses import dataclass

from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.target import Limits, Target
from farm.model.work import LogFile
from farm.queues import PUBLISH
from farm.steps.base import Order, StepType, World, short


@dataclass(frozen=True, kw_only=True)
class LogsInput:
    """`logs` are the logs of all attempts that led to the end of the step."""

    logs: tuple[LogFile, ...]
    batch: int = 0


@dataclass(frozen=True, kw_only=True)
class LogsResult:
    """`url` is the address of the build's files; empty if there were none."""

    url: str


class Logs(StepType[LogsInput, LogsResult]):
    name = "logs"
    input = LogsInput
    output = LogsResult
    is_on_demand = True
    counts = False
    publishes_logs = True

    def queue(self, arch: Arch | None) -> str:
        return PUBLISH

    def is_for(self, arch: Arch | None) -> bool:
        return True  # it follows a step that runs once, or a step of one arch

    def limits(self, target: Target, package: str, options: BuildOptions) -> Limits:
        return short(target.limits)  # it runs no code of the package

    def make(self, order: Order, world: World) -> LogsInput:
        return LogsInput(logs=order.logs, batch=order.batch_id)


LOGS = Logs()
